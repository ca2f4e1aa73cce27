// What one session or tab leaves behind reaches the server without the application touching it.

import { randomBytes } from "node:crypto"
import { describe, expect, it, vi } from "vitest"
import { FakeLocks } from "./fake/locks.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { hashesOf, MemoryStorage, MemoryStore, participant } from "./fake/world.js"

describe("after a restart", () => {
  it("documents that owe something are opened and sent, and others are not", async () => {
    useFakeTime()
    const server = new FakeServer()
    const [outbox, storage] = [new MemoryStore(), new MemoryStorage()]
    const first = participant(server, { outbox, repo: { storage } })
    const quiet = first.repo.create<any>({ n: 0 })
    await pass(1000)
    first.line.cut()
    const owing = first.repo.create<any>({ n: 0 })
    owing.change(doc => (doc.n = 1))
    await pass(500)
    first.adapter.disconnect()

    const second = participant(server, { outbox, repo: { storage } })
    await pass(3000)
    expect(server.hashes(owing.documentId)).toEqual(new Set(hashesOf(owing)))
    expect(outbox.changes.size).toBe(0)
    expect(Object.keys(second.repo.handles)).toEqual([owing.documentId])
    expect(Object.keys(second.repo.handles)).not.toContain(quiet.documentId)
  })

  it("what the repo's storage had no time to save comes from the outbox", async () => {
    useFakeTime()
    const server = new FakeServer()
    const [outbox, storage] = [new MemoryStore(), new MemoryStorage()]
    const first = participant(server, { outbox, repo: { storage } })
    const handle = first.repo.create<any>({ n: 0 })
    await pass(1000)
    first.line.cut()
    handle.change(doc => (doc.n = 1))
    // Not long enough for automerge-repo, which saves every 100 ms.
    await pass(20)
    expect(outbox.hashes(handle.documentId)).toHaveLength(1)
    first.adapter.disconnect()

    const copy = new MemoryStorage()
    for (const { key, data } of await storage.loadRange([])) await copy.save(key, data)
    const second = participant(server, { outbox, repo: { storage: copy } })
    await pass(3000)
    expect(server.hashes(handle.documentId)).toEqual(new Set(hashesOf(handle)))
    const found = second.repo.handles[handle.documentId]!
    expect(found.doc()).toEqual({ n: 1 })
    expect(second.adapter.saveStatus(handle.documentId).state).toBe("saved")
  })

  it("works without storage in the repo: what is missing comes from the server", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const first = participant(server, { outbox })
    const handle = first.repo.create<any>({ n: 0 })
    await pass(1000)
    first.line.cut()
    handle.change(doc => (doc.n = 1))
    await pass(20)
    first.adapter.disconnect()
    participant(server, { outbox })
    await pass(3000)
    expect(server.hashes(handle.documentId)).toEqual(new Set(hashesOf(handle)))
    expect(outbox.changes.size).toBe(0)
  })

  it("flush waits for it from the first moment", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const first = participant(server, { outbox })
    const handle = first.repo.create<any>({ n: 0 })
    await pass(1000)
    first.line.cut()
    handle.change(doc => (doc.n = 1))
    await pass(20)
    first.adapter.disconnect()
    const second = participant(server, { outbox })
    let isFlushed = false
    void second.adapter.flush().then(() => (isFlushed = true))
    for (let ms = 0; ms < 3000 && !isFlushed; ms++) await pass(1)
    expect(isFlushed).toBe(true)
    expect(server.hashes(handle.documentId)).toEqual(new Set(hashesOf(handle)))
  })

  it("offline, what was saved before is called saved, and what is owed is not", async () => {
    useFakeTime()
    const server = new FakeServer()
    const [outbox, storage] = [new MemoryStore(), new MemoryStorage()]
    const first = participant(server, { outbox, repo: { storage } })
    const [saved, owed] = [first.repo.create<any>({ n: 0 }), first.repo.create<any>({ n: 0 })]
    await pass(3000)
    first.line.cut()
    owed.change(doc => (doc.n = 1))
    await pass(500)
    first.adapter.disconnect()

    const line = server.line()
    line.mode = "silent"
    const second = participant(server, { outbox, repo: { storage }, line })
    void second.repo.find(saved.url)
    await pass(3000)
    expect(second.adapter.saveStatus(saved.documentId)).toMatchObject({ state: "saved", unsavedChanges: 0 })
    expect(second.adapter.saveStatus(owed.documentId)).toMatchObject({ state: "savedOnDevice", unsavedChanges: 1 })
    const error = second.adapter.close({ timeout: 1000 }).catch(error => error)
    await pass(1000)
    expect((await error).documents).toMatchObject([{ documentId: owed.documentId, hashes: outbox.hashes(owed.documentId) }])
  })

  it("what belongs to a document that cannot be opened is posted as it is, in several requests if it is large", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {})
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const first = participant(server, { outbox })
    first.line.cut()
    const handle = first.repo.create<any>({ n: 0 })
    for (let n = 0; n < 3; n++) handle.change(doc => (doc[n] = new Uint8Array(randomBytes(2_500_000))))
    await pass(100)
    first.adapter.disconnect()

    const line = server.line()
    const second = participant(server, { outbox, line, more: { fetch: server.fetch(line) } })
    second.repo.find = () => Promise.reject(new Error("its storage is damaged"))
    await pass(3000)
    expect(server.hashes(handle.documentId)).toEqual(new Set(hashesOf(handle)))
    expect(outbox.changes.size).toBe(0)
    expect(server.requests.every(({ body }) => body.length <= 4 * 1024 * 1024)).toBe(true)
    warn.mockRestore()
  })

  it("a document that was deleted owes nothing", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { line, repo, adapter } = participant(server, { outbox })
    line.mode = "silent"
    const handle = repo.create<any>({ n: 0 })
    await pass(100)
    expect(outbox.changes.size).toBe(1)
    repo.delete(handle.documentId)
    await pass(100)
    expect(outbox.changes.size).toBe(0)
    expect(adapter.saveStatus().state).toBe("saved")
  })
})

describe("of several tabs", () => {
  it("one takes over what another leaves when it dies", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const all = new FakeLocks()
    const [one, two, three] = [all.forTab(), all.forTab(), all.forTab()]
    const owner = participant(server, { outbox, more: { locks: one } })
    await pass(100)
    participant(server, { outbox, more: { locks: two } })
    const third = participant(server, { outbox, more: { locks: three } })
    await pass(6000)
    third.line.cut()
    const handle = third.repo.create<any>({ n: 0 })
    await pass(100)
    // While it lives its changes are its own to send.
    await pass(10_000)
    expect(server.hashes(handle.documentId).size).toBe(0)
    three.die()
    third.adapter.disconnect()
    await pass(10_000)
    expect(server.hashes(handle.documentId).size).toBe(1)
    expect(outbox.changes.size).toBe(0)

    // And if it is the owner itself that dies.
    owner.line.cut()
    const last = owner.repo.create<any>({ n: 0 })
    await pass(100)
    one.die()
    owner.adapter.disconnect()
    await pass(10_000)
    expect(server.hashes(last.documentId).size).toBe(1)
    expect(outbox.changes.size).toBe(0)
  })
})

describe("where locks do not work", () => {
  /** A change that a session without a connection has left. */
  async function left() {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { adapter, repo, line } = participant(server, { outbox })
    line.cut()
    const handle = repo.create<any>({ n: 0 })
    await pass(100)
    adapter.disconnect()
    return { server, outbox, handle }
  }

  const denied = () => Promise.reject(new DOMException("no locks in this frame", "SecurityError"))

  it("as in a frame without an origin, it goes on as if there were none", async () => {
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {})
    const { server, outbox, handle } = await left()
    const { adapter } = participant(server, { outbox, more: { locks: { request: denied, query: denied } } })
    let isFlushed = false
    void adapter.flush().then(() => (isFlushed = true))
    await pass(3000)
    expect(isFlushed).toBe(true)
    expect(server.hashes(handle.documentId).size).toBe(1)
    expect(outbox.changes.size).toBe(0)
    warn.mockRestore()
  })

  it("if only asking fails after the owner's lock was taken, what was left is sent all the same", async () => {
    const { server, outbox, handle } = await left()
    const locks = new FakeLocks().forTab()
    participant(server, { outbox, more: { locks: { ...locks, query: denied } } })
    await pass(3000)
    expect(server.hashes(handle.documentId).size).toBe(1)
    expect(outbox.changes.size).toBe(0)
  })

  it("for a while only, tabs count as living that did before, and are looked after when it works again", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const all = new FakeLocks()
    const [one, two] = [all.forTab(), all.forTab()]
    const { query } = one
    participant(server, { outbox, more: { locks: one } })
    const other = participant(server, { outbox, more: { locks: two } })
    await pass(6000)
    one.query = denied
    other.line.cut()
    const handle = other.repo.create<any>({ n: 0 })
    // Longer than until the owner looks into the outbox in any case.
    await pass(70_000)
    expect(server.hashes(handle.documentId).size).toBe(0)
    one.query = query
    two.die()
    other.adapter.disconnect()
    await pass(10_000)
    expect(server.hashes(handle.documentId).size).toBe(1)
  })
})
