import { randomBytes } from "node:crypto"
import * as A from "@automerge/automerge"
import { expect, it } from "vitest"
import { newDocumentId, PlainDocument, sendLeftovers } from "../src/plain/index.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { environment, MemoryStore } from "./fake/world.js"

const URL = "ws://server.test"

/** A session that ends offline, and what it leaves of each of its documents. */
async function offline(server: FakeServer, outbox: MemoryStore, edits: Array<(doc: PlainDocument<any>) => void>) {
  const line = server.line()
  line.mode = "refused"
  const docs = edits.map(edit => {
    const doc = new PlainDocument<any>(URL, newDocumentId(), { outbox, environment: environment(line) })
    edit(doc)
    return doc
  })
  await pass(100)
  for (const doc of docs) doc.disconnect()
  return docs.map(({ documentId, doc }) => ({ documentId, hashes: A.getChangesMetaSince(doc, []).map(({ hash }) => hash) }))
}

const typing = (message?: string) => (doc: PlainDocument<any>) => {
  for (let n = 0; n < 3; n++) doc.change(d => (d.n = n), message === undefined ? {} : { message })
}

function sending(server: FakeServer, outbox: MemoryStore, line = server.line()) {
  return sendLeftovers(URL, { outbox, token: "t", environment: environment(line, { fetch: server.fetch(line) }) })
}

it("sends what a session has left of all its documents, and leaves nothing", async () => {
  useFakeTime()
  const [server, outbox] = [new FakeServer(), new MemoryStore()]
  const left = await offline(server, outbox, [typing(), typing()])
  expect(await sending(server, outbox)).toEqual([])
  for (const { documentId, hashes } of left) expect(server.hashes(documentId)).toEqual(new Set(hashes))
  expect(outbox.changes.size).toBe(0)
  expect(server.requests.map(({ url }) => url)).toEqual(left.map(({ documentId }) => `http://server.test/v1/docs/${documentId}/changes?token=t`))
  expect(await sending(server, outbox)).toEqual([])
  expect(server.requests).toHaveLength(2)
})

it("keeps what could not be sent, and says so", async () => {
  useFakeTime()
  const [server, outbox] = [new FakeServer(), new MemoryStore()]
  const left = await offline(server, outbox, [typing(), typing()])
  const line = server.line()
  line.mode = "silent"
  expect(await sending(server, outbox, line)).toEqual(left.map(one => ({ ...one, rejected: [] })))
  expect(outbox.changes.size).toBe(6)
})

it("says what the server has refused, and sends the rest", async () => {
  useFakeTime()
  const [server, outbox] = [new FakeServer(), new MemoryStore()]
  server.refuses = ({ message }) => message === "bad"
  const [bad, good] = await offline(server, outbox, [typing("bad"), typing()])
  const rejected = bad!.hashes.map(hash => ({ hash, reason: "refused by the test" }))
  expect(await sending(server, outbox)).toEqual([{ ...bad, rejected }])
  expect(server.hashes(good!.documentId).size).toBe(3)
  expect(outbox.hashes(bad!.documentId)).toEqual(bad!.hashes)
})

it("sends much in several requests", async () => {
  useFakeTime()
  const [server, outbox] = [new FakeServer(), new MemoryStore()]
  const noise = () => new Uint8Array(randomBytes(1_500_000))
  const [left] = await offline(server, outbox, [doc => [1, 2, 3, 4, 5].forEach(n => doc.change(d => (d[n] = noise())))])
  expect(await sending(server, outbox)).toEqual([])
  expect(server.hashes(left!.documentId)).toEqual(new Set(left!.hashes))
  expect(server.requests.length).toBeGreaterThan(1)
  expect(server.requests.every(({ body }) => body.length <= 4 * 1024 * 1024)).toBe(true)
})

it("sends what several tabs have left of a document in causal order, whichever wrote last", async () => {
  useFakeTime()
  const [server, outbox] = [new FakeServer(), new MemoryStore()]
  const noise = () => new Uint8Array(randomBytes(2_500_000))
  const [left] = await offline(server, outbox, [doc => [1, 2, 3].forEach(n => doc.change(d => (d[n] = noise())))])
  const rows = [...outbox.changes].reverse()
  outbox.changes.clear()
  for (const [key, change] of rows) outbox.changes.set(key, change)
  expect(await sending(server, outbox)).toEqual([])
  expect(server.hashes(left!.documentId)).toEqual(new Set(left!.hashes))
  expect(outbox.changes.size).toBe(0)
})
