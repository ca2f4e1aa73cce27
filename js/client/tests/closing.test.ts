// Close while somebody types, waits that have to end, and what is typed after the end.

import * as A from "@automerge/automerge"
import { afterEach, describe, expect, it, vi } from "vitest"
import { environmentOf } from "../src/core/environment.js"
import { PlainDocument } from "../src/plain/index.js"
import { FakeLocks } from "./fake/locks.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { DOCUMENT_ID, environment, hashesOf, MemoryStore, participant } from "./fake/world.js"

/** What a promise came to. */
function ending(promise: Promise<unknown>): { is?: "resolved" | "rejected"; error?: any } {
  const ending: { is?: "resolved" | "rejected"; error?: any } = {}
  promise.then(
    () => (ending.is = "resolved"),
    error => Object.assign(ending, { is: "rejected", error })
  )
  return ending
}

function plain(server: FakeServer, outbox?: MemoryStore) {
  const line = server.line()
  const options = { environment: environment(line), ...(outbox ? { outbox } : {}) }
  const doc = new PlainDocument<any>("ws://server.test", DOCUMENT_ID, options)
  return { line, doc }
}

describe("close", () => {
  it("waits for what is typed while it waits for the outbox", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { adapter, repo } = participant(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    outbox.writeMs = 500
    handle.change(doc => (doc.n = 1))
    const close = ending(adapter.close())
    await pass(300)
    expect(server.hashes(handle.documentId).size).toBe(2)
    handle.change(doc => (doc.n = 2))
    await pass(5000)
    expect(close.is).toBe("resolved")
    expect([...server.hashes(handle.documentId)].sort()).toEqual(hashesOf(handle).sort())
  })

  it("of a plain document does so, too", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { doc } = plain(server, outbox)
    await pass(1000)
    outbox.writeMs = 500
    doc.change(d => (d.n = 1))
    const close = ending(doc.close())
    await pass(300)
    doc.change(d => (d.n = 2))
    await pass(5000)
    expect(close.is).toBe("resolved")
    expect(server.hashes(DOCUMENT_ID).size).toBe(2)
  })

  it("ends within one timeout, and not two, if the outbox is slow", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { adapter, repo } = participant(server, { outbox })
    repo.create<any>({ n: 0 })
    await pass(1000)
    server.commitMs = 800
    const handle = repo.create<any>({ n: 0 })
    outbox.write = () => new Promise(() => {})
    handle.change(doc => (doc.n = 1))
    const close = ending(adapter.close({ timeout: 1000 }))
    await pass(1000)
    expect(close.is).toBeDefined()
  })

  it("of a plain document ends in time although its outbox never answers", async () => {
    useFakeTime()
    const outbox = new MemoryStore()
    const { doc } = plain(new FakeServer(), outbox)
    await pass(1000)
    outbox.write = () => new Promise(() => {})
    doc.change(d => (d.n = 1))
    const close = ending(doc.close({ timeout: 500 }))
    await pass(500)
    expect(close.is).toBe("resolved")
  })
})

describe("an environment", () => {
  afterEach(() => vi.restoreAllMocks())

  it("waits long if it is told to wait for ever: timers of more than 24 days fire at once", () => {
    const real = vi.spyOn(globalThis, "setTimeout").mockImplementation((() => 0) as any)
    const own = vi.fn()
    environmentOf({}).setTimeout(() => {}, Infinity)
    environmentOf({ setTimeout: own }).setTimeout(() => {}, Infinity)
    expect(real.mock.calls[0]![1]).toBe(2 ** 31 - 1)
    expect(own.mock.calls[0]![1]).toBe(2 ** 31 - 1)
  })
})

describe("somebody who waits", () => {
  it("is told when the application disconnects, and can wait again when it connects", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo } = participant(server)
    await pass(100)
    server.commitMs = 1e9
    const handle = repo.create<any>({ n: 0 })
    const saved = ending(adapter.whenSaved(handle))
    await pass(100)
    adapter.disconnect()
    await pass(0)
    expect(saved.error).toMatchObject({ reason: "stopped", documents: [{ hashes: hashesOf(handle) }] })
    expect(String(saved.error.cause)).toContain("disconnect()")

    server.kill()
    server.start()
    server.commitMs = 1
    adapter.connect(adapter.peerId!, adapter.peerMetadata)
    const again = ending(adapter.whenSaved(handle))
    await pass(1000)
    expect(again.is).toBe("resolved")
  })

  it("for a plain document to be there is told when the application disconnects, also afterwards", async () => {
    useFakeTime()
    const { doc, line } = plain(new FakeServer())
    line.mode = "silent"
    const synced = ending(doc.whenSynced())
    await pass(100)
    doc.disconnect()
    const again = ending(doc.whenSynced())
    await pass(0)
    for (const { error } of [synced, again]) expect(String(error)).toContain("disconnect()")
  })

  it("is told when the document is deleted", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo, line } = participant(server)
    line.mode = "silent"
    const handle = repo.create<any>({ n: 0 })
    const hashes = hashesOf(handle)
    const saved = ending(adapter.whenSaved(handle))
    repo.delete(handle.documentId)
    await pass(100)
    expect(saved.error).toMatchObject({ reason: "deleted", documents: [{ documentId: handle.documentId, hashes }] })
  })

  it("can do so again in a page that comes back after the connection had been stopped", async () => {
    useFakeTime()
    const server = new FakeServer()
    const window = new EventTarget()
    const { adapter, repo } = participant(server, { more: { window } })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    server.closeAll(4409)
    await pass(100)
    expect(adapter.state).toBe("stopped")
    window.dispatchEvent(Object.assign(new Event("pagehide"), { persisted: true }))
    window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }))
    handle.change(doc => (doc.n = 1))
    const saved = ending(adapter.whenSaved(handle))
    await pass(1000)
    expect([adapter.state, saved.is]).toEqual(["open", "resolved"])
  })
})

describe("after the end", () => {
  it("a page that comes back does not connect what the application has disconnected", async () => {
    useFakeTime()
    const window = new EventTarget()
    const { adapter } = participant(new FakeServer(), { more: { window } })
    await pass(100)
    adapter.disconnect()
    window.dispatchEvent(Object.assign(new Event("pagehide"), { persisted: true }))
    window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }))
    await pass(1000)
    expect(adapter.state).toBe("idle")
  })

  it.each([false, true])("what is typed is not called saved (outbox: %s)", async hasOutbox => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { adapter, repo } = participant(server, hasOutbox ? { outbox } : {})
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    const close = ending(adapter.close())
    await pass(1000)
    expect(close.is).toBe("resolved")
    handle.change(doc => (doc.n = 1))
    const other = repo.create<any>({ n: 0 })
    await pass(100)
    const state = hasOutbox ? "savedOnDevice" : "notSaved"
    expect(adapter.saveStatus(handle)).toMatchObject({ state, unsavedChanges: 1 })
    expect(adapter.saveStatus()).toMatchObject({ state, unsavedChanges: 2 })
    const [saved, flushed, again] = [adapter.whenSaved(handle), adapter.flush(), adapter.close()].map(ending)
    await pass(0)
    for (const { error } of [saved!, flushed!, again!]) expect(error).toMatchObject({ reason: "stopped" })
    expect(outbox.hashes(other.documentId)).toEqual(hasOutbox ? hashesOf(other) : [])
  })

  it("what is typed goes out if the adapter is connected again", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo } = participant(server)
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    const close = ending(adapter.close())
    await pass(1000)
    expect(close.is).toBe("resolved")
    handle.change(doc => (doc.n = 1))
    adapter.connect(adapter.peerId!, adapter.peerMetadata)
    await pass(1000)
    expect(adapter.saveStatus(handle).state).toBe("saved")
    expect(server.hashes(handle.documentId).size).toBe(2)
  })

  it("what is typed into a plain document is not called saved", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { doc } = plain(server)
    await pass(1000)
    const close = ending(doc.close())
    await pass(1000)
    expect(close.is).toBe("resolved")
    doc.change(d => (d.n = 1))
    const saved = ending(doc.whenSaved())
    await pass(0)
    expect(doc.saveStatus()).toMatchObject({ state: "notSaved", unsavedChanges: 1 })
    expect(saved.error).toMatchObject({ reason: "stopped", documents: [{ hashes: A.getHeads(doc.doc) }] })
  })
})

describe("after disconnect", () => {
  async function twoTabs() {
    useFakeTime()
    const server = new FakeServer()
    const [outbox, locks] = [new MemoryStore(), new FakeLocks()]
    const owner = participant(server, { outbox, more: { locks: locks.forTab() } })
    await pass(100)
    const other = participant(server, { outbox, more: { locks: locks.forTab() } })
    await pass(100)
    return { server, outbox, owner, other }
  }

  it("another tab takes over what is in the outbox", async () => {
    const { server, outbox, owner, other } = await twoTabs()
    owner.line.mode = "refused"
    owner.line.cut()
    const handle = owner.repo.create<any>({ n: 0 })
    const close = ending(owner.adapter.close({ timeout: 1000 }))
    await pass(1000)
    expect(close.error).toMatchObject({ reason: "timeout" })
    const shutdown = owner.repo.shutdown()
    await pass(10_000)
    await shutdown
    expect(server.hashes(handle.documentId).size).toBe(1)
    expect(outbox.changes.size).toBe(0)
    expect(other.adapter.saveStatus().state).toBe("saved")
  })

  it("the tab takes part again when it connects", async () => {
    const { server, owner, other } = await twoTabs()
    owner.adapter.disconnect()
    await pass(6000)
    owner.adapter.connect(owner.adapter.peerId!, owner.adapter.peerMetadata)
    await pass(1000)
    // The other tab is the owner now. If it ends, too, this one is there to take over.
    other.line.cut()
    const handle = other.repo.create<any>({ n: 0 })
    await pass(100)
    other.adapter.disconnect()
    await pass(10_000)
    expect(server.hashes(handle.documentId).size).toBe(1)
  })

  it("before the outbox has been read, no locks are taken", async () => {
    useFakeTime()
    const outbox = new MemoryStore()
    const locks = new FakeLocks().forTab()
    const load = outbox.load.bind(outbox)
    outbox.load = async () => {
      await new Promise(resolve => setTimeout(resolve, 100))
      return load()
    }
    const { adapter } = participant(new FakeServer(), { outbox, more: { locks } })
    await pass(50)
    adapter.disconnect()
    await pass(1000)
    expect((await locks.query()).held).toEqual([])
    adapter.connect(adapter.peerId!, adapter.peerMetadata)
    await pass(1000)
    expect((await locks.query()).held).toHaveLength(2)
  })
})
