import { createHash, randomBytes } from "node:crypto"
import { generateAutomergeUrl, isValidDocumentId, parseAutomergeUrl } from "@automerge/automerge-repo"
import { expect, it } from "vitest"
import { documentIdIn, newDocumentId } from "../src/core/document-id.js"
import { sha256 } from "../src/core/sha256.js"
import { openDocument, PlainDocument } from "../src/plain/index.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { environment } from "./fake/world.js"

it("hashes as everybody does", () => {
  for (let length = 0; length < 300; length++) {
    const bytes = new Uint8Array(randomBytes(length))
    expect(Buffer.from(sha256(bytes)).toString("hex")).toBe(createHash("sha256").update(bytes).digest("hex"))
  }
})

it("takes automerge-repo's ids, with and without the prefix", () => {
  for (let n = 0; n < 200; n++) {
    const url = generateAutomergeUrl()
    const { documentId } = parseAutomergeUrl(url)
    expect([documentIdIn(documentId), documentIdIn(url)]).toEqual([documentId, documentId])
  }
})

it("makes ids that automerge-repo takes, each another one", () => {
  const ids = Array.from({ length: 200 }, () => newDocumentId())
  expect(ids.filter(id => !isValidDocumentId(id))).toEqual([])
  expect(new Set(ids).size).toBe(200)
})

it("reads ids that begin with zeros", () => {
  const zeros = newDocumentId(new Uint8Array(16))
  expect(isValidDocumentId(zeros)).toBe(true)
  expect(documentIdIn(zeros)).toBe(zeros)
})

const GOOD = "4NMNnkMhL8jXrdJ9jamS58PAVdXu"
const BAD = ["", "my-document", `${GOOD}x`, GOOD.slice(1), GOOD.replace("4", "5"), `1${GOOD}`, GOOD.replace("4", "0"), "5KN2", `automerge:automerge:${GOOD}`]

it.each(BAD)("refuses %j at once", async bad => {
  useFakeTime()
  const options = { environment: environment(new FakeServer().line()) }
  expect(() => new PlainDocument("ws://server.test", bad, options)).toThrow("is not a document id")
  await expect(openDocument("ws://server.test", bad, options)).rejects.toThrow("is not a document id")
})

it("the server of the tests is as strict as the real one", async () => {
  useFakeTime()
  const server = new FakeServer()
  const line = server.line()
  const socket = new line.WebSocket("ws://server.test/v1/docs/my-document/sync")
  let code = 0
  socket.addEventListener("close", event => (code = event.code))
  await pass(100)
  expect(code).toBe(1006)
  const answer = await server.fetch(line)("http://server.test/v1/docs/my-document/changes", { method: "POST", body: new Uint8Array(), headers: {} })
  expect(answer.status).toBe(400)
})

it("a document with its prefix is opened and closed", async () => {
  useFakeTime()
  const server = new FakeServer()
  const opening = openDocument<any>("ws://server.test", `automerge:${GOOD}`, { environment: environment(server.line()) })
  await pass(100)
  const doc = await opening
  expect(doc.documentId).toBe(GOOD)
  doc.change(d => (d.n = 1))
  const closing = doc.close()
  await pass(100)
  await closing
  expect(server.hashes(GOOD).size).toBe(1)
})
