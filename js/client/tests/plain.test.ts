import * as A from "@automerge/automerge"
import { describe, expect, it, vi } from "vitest"
import { openDocument, PlainDocument, type OpenDocumentOptions } from "../src/plain/index.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { DOCUMENT_ID, environment, MemoryStore } from "./fake/world.js"

interface Note {
  n?: number
  m?: number
}

async function opened(server: FakeServer, options: OpenDocumentOptions<Note> & { line?: ReturnType<FakeServer["line"]> } = {}) {
  const line = options.line ?? server.line()
  const opening = openDocument<Note>("ws://server.test", DOCUMENT_ID, { environment: environment(line), ...options })
  await pass(100)
  return { line, doc: await opening }
}

describe("a plain document", () => {
  it("is opened, changed, saved and closed", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { doc } = await opened(server)
    expect(doc.saveStatus().state).toBe("saved")
    doc.change(d => (d.n = 1))
    expect(doc.saveStatus()).toMatchObject({ state: "saving", unsavedChanges: 1 })
    const saved = doc.whenSaved()
    await pass(50)
    await saved
    const [head] = A.getHeads(doc.doc)
    const [known, unknown] = [doc.isSaved(head!), doc.isSaved("ab".repeat(32))]
    await pass(50)
    expect([await known, await unknown]).toEqual([true, false])
    await doc.close()
    expect(doc.state).toBe("idle")
    await expect(doc.isSaved(head!)).rejects.toThrow("not connected")
  })

  it("hears of others' changes", async () => {
    useFakeTime()
    const server = new FakeServer()
    const [{ doc: hers }, { doc: his }] = [await opened(server), await opened(server)]
    const heard: unknown[] = []
    const undo = his.on("change", doc => heard.push(A.toJS(doc)))
    hers.change(d => (d.n = 1))
    await pass(100)
    undo()
    hers.change(d => (d.n = 2))
    await pass(100)
    expect(heard).toEqual([{ n: 1 }])
    expect(his.doc).toEqual({ n: 2 })
  })

  it("keeps what is changed while the connection is gone", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { doc, line } = await opened(server)
    line.cut()
    doc.change(d => (d.n = 1))
    await pass(30_000)
    expect(doc.saveStatus()).toMatchObject({ state: "notSaved", unsavedChanges: 1 })
    doc.change(d => (d.n = 2))
    line.mend()
    const closing = doc.close({ timeout: 60_000 })
    await pass(60_000)
    await closing
    expect(server.hashes(DOCUMENT_ID).size).toBe(2)
  })

  it("says what the server refused", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.refuses = ({ message }) => message === "bad"
    const { doc } = await opened(server)
    doc.change(d => (d.n = 1), { message: "bad" })
    await pass(100)
    expect(doc.saveStatus().state).toBe("rejected")
    await expect(doc.close()).rejects.toMatchObject({ reason: "rejected" })
  })

  it("gives up opening in time, and says why", async () => {
    useFakeTime()
    const line = new FakeServer().line()
    line.mode = "silent"
    const opening = openDocument("ws://server.test", DOCUMENT_ID, { environment: environment(line), timeout: 500 }).catch(e => e)
    await pass(500)
    expect((await opening).message).toContain("is it reachable?")
  })

  it("gives up opening when the server says for good that it may not", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.token = "good"
    const opening = openDocument("ws://server.test", DOCUMENT_ID, { environment: environment(server.line()), token: "bad" }).catch(e => e)
    await pass(500)
    expect(await opening).toMatchObject({ name: "ConnectionStoppedError", code: 4401 })
  })

  it("can be used offline from what the application has stored", async () => {
    useFakeTime()
    const server = new FakeServer()
    const line = server.line()
    line.mode = "refused"
    const initial = A.from<any>({ n: 1 }) as A.Doc<Note>
    const doc = new PlainDocument<Note>("ws://server.test", DOCUMENT_ID, { environment: environment(line), initial })
    doc.change(d => (d.m = 1))
    await pass(100)
    expect(doc.saveStatus()).toMatchObject({ state: "notSaved", unsavedChanges: 2 })
    line.mode = "up"
    await pass(60_000)
    expect(doc.saveStatus().state).toBe("saved")
  })
})

it("a listener that changes the document does not have others hear of an older one after it", async () => {
  useFakeTime()
  const { doc } = await opened(new FakeServer())
  const heard: unknown[] = []
  doc.on("change", now => {
    if (now.n === 1) doc.change(d => (d.n = 2))
  })
  doc.on("change", now => heard.push(now.n))
  doc.change(d => (d.n = 1))
  expect(heard).toEqual([2])
  doc.disconnect()
})

it("what a plain document begins with is owed until the server says that it has it, and is on the device only if the outbox has it", async () => {
  useFakeTime()
  const server = new FakeServer()
  const initial = A.load<Note>(A.save(A.change(A.from<any>({ n: 1 }), d => (d.n = 2))))
  for (const outbox of [undefined, new MemoryStore()]) {
    const line = server.line()
    line.mode = "refused"
    const options = { environment: environment(line), initial: A.clone(initial), ...(outbox ? { outbox } : {}) }
    const doc = new PlainDocument<Note>("ws://server.test", DOCUMENT_ID, options)
    expect(doc.saveStatus()).toMatchObject({ state: "notSaved", unsavedChanges: 2 })
    await pass(100)
    expect(doc.saveStatus()).toMatchObject({ state: outbox ? "savedOnDevice" : "notSaved", unsavedChanges: 2 })
    if (outbox) expect(outbox.hashes(DOCUMENT_ID)).toHaveLength(2)
    line.mode = "up"
    await pass(60_000)
    expect(doc.saveStatus()).toMatchObject({ state: "saved", unsavedChanges: 0 })
    if (outbox) expect(outbox.changes.size).toBe(0)
    doc.disconnect()
  }
})

it("the browser is asked to keep the outbox of plain documents, once, and only when there is something in it", async () => {
  useFakeTime()
  let asked = 0
  const persistStorage = async () => ++asked > 0
  const server = new FakeServer()
  const line = server.line()
  const { doc } = await opened(server, { environment: environment(line, { persistStorage }), outbox: new MemoryStore() })
  expect(asked).toBe(0)
  for (let n = 0; n < 3; n++) doc.change(d => (d.n = n))
  expect(asked).toBe(1)
  const { doc: without } = await opened(server, { environment: environment(line, { persistStorage }) })
  without.change(d => (d.n = 9))
  expect(asked).toBe(1)
})

it("a question on a socket that is closing is answered with an error, and not never", async () => {
  useFakeTime()
  const { doc, line } = await opened(new FakeServer())
  for (const socket of line.sockets) socket.readyState = 2
  await expect(doc.isSaved("ab".repeat(32))).rejects.toThrow("ask again")
  doc.disconnect()
})

it("a damaged change in the outbox is listed, and hides nothing else", async () => {
  useFakeTime()
  const warn = vi.spyOn(console, "warn").mockImplementation(() => {})
  const outbox = new MemoryStore()
  const damaged = { documentId: DOCUMENT_ID, hash: "ab".repeat(32), deps: [], bytes: new Uint8Array([1, 2, 3]), since: 0, writer: "w" }
  outbox.changes.set(`${DOCUMENT_ID} ${damaged.hash}`, damaged)
  const { doc } = await opened(new FakeServer(), { outbox })
  doc.change(d => (d.n = 1))
  const closing = doc.close({ timeout: 1000 }).catch(error => error)
  await pass(1000)
  expect(await closing).toMatchObject({ reason: "timeout", documents: [{ hashes: [damaged.hash] }] })
  expect(doc.saveStatus()).toMatchObject({ state: "saving", unsavedChanges: 1 })
  doc.disconnect()
  warn.mockRestore()
})
