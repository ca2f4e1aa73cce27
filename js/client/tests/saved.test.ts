// What "saved" promises, whatever becomes of the client's copy, of the connection and of the server: all that this
// client ever had of a document is durable on the server that it is connected to, or was last connected to.

import * as A from "@automerge/automerge"
import { generateAutomergeUrl, parseAutomergeUrl, type DocHandle } from "@automerge/automerge-repo"
import fc from "fast-check"
import { describe, expect, it, vi } from "vitest"
import { openDocument, PlainDocument } from "../src/plain/index.js"
import { FakeLocks } from "./fake/locks.js"
import { runs } from "./fake/runs.js"
import { Issuer, play, repair, schedule, type Step } from "./fake/schedule.js"
import { FakeServer } from "./fake/server.js"
import type { Line } from "./fake/socket.js"
import { forgetTimers, pass, useFakeTime } from "./fake/time.js"
import { DOCUMENT_ID, environment, hashesOf, MemoryStorage, MemoryStore, participant, type Participant } from "./fake/world.js"

/** Whether a promise has resolved. */
function watch(promise: Promise<unknown>): { isDone: boolean; error?: any } {
  const result: { isDone: boolean; error?: any } = { isDone: false }
  promise.then(
    () => (result.isDone = true),
    error => (result.error = error)
  )
  return result
}

/** A document that a session without a connection has left in the outbox. */
async function leftBehind(server: FakeServer, outbox: MemoryStore): Promise<DocHandle<any>> {
  const { adapter, repo, line } = participant(server, { outbox })
  line.cut()
  const handle = repo.create<any>({ n: 0 })
  await pass(100)
  adapter.disconnect()
  return handle
}

/** A first session, with an outbox and storage, and a document of it that is saved. */
async function savedSession() {
  useFakeTime()
  const server = new FakeServer()
  const [outbox, storage] = [new MemoryStore(), new MemoryStorage()]
  const first = participant(server, { outbox, repo: { storage } })
  const handle = first.repo.create<any>({ n: 0 })
  await pass(3000)
  return { server, outbox, storage, first, handle }
}

describe("whenSaved", () => {
  it("of a document that was loaded waits until the server has all of it", async () => {
    useFakeTime()
    const server = new FakeServer()
    const storage = new MemoryStorage()
    const before = participant(server, { repo: { storage } })
    const handle = before.repo.create<any>({ n: 0 })
    await pass(1000)
    before.line.cut()
    handle.change(doc => (doc.n = 1))
    await pass(500)
    before.adapter.disconnect()

    server.commitMs = 300
    const { adapter, repo } = participant(server, { repo: { storage } })
    void repo.find(handle.url)
    await pass(2)
    const saved = watch(adapter.whenSaved(handle.documentId))
    for (let ms = 0; ms < 3000 && !saved.isDone; ms++) await pass(1)
    expect(saved.isDone).toBe(true)
    expect(server.hashes(handle.documentId)).toEqual(new Set(hashesOf(handle)))
  })

  it("of a plain document with contents waits until the server has all of it", async () => {
    useFakeTime()
    const server = new FakeServer()
    const old = A.from<any>({ n: 0 })
    server.documents.set(DOCUMENT_ID, A.clone(old))
    server.commitMs = 300
    const initial = A.load<any>(A.save(A.change(old, d => (d.n = 1))))
    const doc = new PlainDocument<any>("ws://server.test", DOCUMENT_ID, { environment: environment(server.line()), initial })
    const saved = watch(doc.whenSaved())
    for (let ms = 0; ms < 3000 && !saved.isDone; ms++) await pass(1)
    expect(saved.isDone).toBe(true)
    expect(server.hashes(DOCUMENT_ID).size).toBe(2)
    doc.disconnect()
  })

  it("does not count what another server had", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo } = participant(server)
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    server.commitMs = 400
    handle.change(doc => (doc.n = 1))
    const saved = watch(adapter.whenSaved(handle))
    server.replace()
    for (let ms = 0; ms < 5000 && !saved.isDone; ms++) await pass(1)
    expect(saved.isDone).toBe(true)
    expect(server.hashes(handle.documentId)).toEqual(new Set(hashesOf(handle)))
  })
})

it("an error of a document that was opened on a connection lists what was never durable, and not all of it", async () => {
  const { server, outbox, storage, first, handle } = await savedSession()
  first.line.cut()
  handle.change(doc => (doc.n = 1))
  await pass(300)
  first.adapter.disconnect()
  outbox.changes.clear()

  const { adapter, repo } = participant(server, { outbox, repo: { storage } })
  await pass(1000)
  server.commitMs = 1e9
  void repo.find(handle.url)
  await pass(10)
  const saved = watch(adapter.whenSaved(handle.documentId, { timeout: 1000 }))
  await pass(1000)
  expect(saved.error.documents).toEqual([{ documentId: handle.documentId, hashes: hashesOf(handle).slice(1), rejected: [] }])
})

describe("a document that is read again from storage that is behind", () => {
  it("without storage: what the server had not committed is sent again", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { adapter, repo } = participant(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    server.commitMs = 5000
    handle.change(doc => (doc.n = 1))
    await pass(50)
    const all = hashesOf(handle)
    await repo.removeFromCache(handle.documentId)
    server.kill()
    server.commitMs = 1
    server.start()
    await pass(5000)
    const finding = repo.find<any>(handle.url)
    await pass(5000)
    expect((await finding).doc()).toEqual({ n: 1 })
    expect(server.hashes(handle.documentId)).toEqual(new Set(all))
    expect(adapter.saveStatus(handle).state).toBe("saved")
    expect(outbox.changes.size).toBe(0)
  })

  it("with storage, offline: nothing that was typed is lost", async () => {
    useFakeTime()
    const server = new FakeServer()
    const [outbox, storage] = [new MemoryStore(), new MemoryStorage()]
    const { adapter, repo, line } = participant(server, { outbox, repo: { storage } })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    line.cut()
    handle.change(doc => (doc.n = 1))
    handle.change(doc => (doc.m = 1))
    const all = hashesOf(handle)
    await pass(10)
    // automerge-repo saves 100 ms later, and what it has not saved by now it does not save any more.
    await repo.removeFromCache(handle.documentId)
    const finding = repo.find<any>(handle.url)
    await pass(20_000)
    const found = await finding
    expect(adapter.saveStatus(found)).toMatchObject({ state: "savedOnDevice", unsavedChanges: 2 })
    expect(outbox.hashes(handle.documentId)).toEqual(all.slice(1))
    expect(found.doc()).toEqual({ n: 1, m: 1 })
    line.mend()
    await pass(60_000)
    expect(server.hashes(handle.documentId)).toEqual(new Set(all))
    expect(adapter.saveStatus(found).state).toBe("saved")
  })

  it("is sent also if nobody reads it again", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo, line } = participant(server, { outbox: new MemoryStore() })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    line.cut()
    handle.change(doc => (doc.n = 1))
    const all = hashesOf(handle)
    await pass(10)
    await repo.removeFromCache(handle.documentId)
    line.mend()
    await pass(60_000)
    expect(server.hashes(handle.documentId)).toEqual(new Set(all))
    expect(adapter.saveStatus().state).toBe("saved")
  })
})

describe("what was durable on another server", () => {
  it("is not saved in a later session that opens the document offline", async () => {
    const { server, outbox, storage, first, handle } = await savedSession()
    expect(outbox.durableHeads.size).toBe(1)
    first.adapter.disconnect()
    server.replace()
    const second = participant(server, { outbox, repo: { storage } })
    await pass(3000)
    second.adapter.disconnect()

    const line = server.line()
    line.mode = "silent"
    const third = participant(server, { outbox, repo: { storage }, line })
    void third.repo.find(handle.url)
    await pass(2000)
    expect(server.hashes(handle.documentId).size).toBe(0)
    expect(third.adapter.saveStatus(handle).state).toBe("savedOnDevice")
    const closing = watch(third.adapter.close({ timeout: 1000 }))
    await pass(1000)
    expect(closing.error.documents).toEqual([{ documentId: handle.documentId, hashes: hashesOf(handle), rejected: [] }])
  })

  it("is written down again for the server that has it now", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { repo } = participant(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    await pass(3000)
    server.replace()
    await pass(5000)
    expect(outbox.serverId).toBe(server.storageId)
    expect(outbox.durableHeads.get(handle.documentId)).toEqual({ heads: hashesOf(handle), serverId: server.storageId })
    repo.delete(handle.documentId)
    await pass(100)
    expect(outbox.durableHeads.size).toBe(0)
  })

  it("is not read again from the outbox within the session", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const locks = new FakeLocks()
    const { adapter, repo, line } = participant(server, { outbox, more: { locks: locks.forTab() } })
    const handle = repo.create<any>({ n: 0 })
    await pass(3000)
    server.commitMs = 1_000_000
    server.replace()
    await pass(5000)
    expect(adapter.saveStatus(handle).state).toBe("saving")
    line.cut()
    // Longer than until the owner looks into the outbox again.
    await pass(90_000)
    expect(adapter.saveStatus(handle)).toMatchObject({ state: "notSaved", unsavedChanges: 1 })
  })
})

describe("before the outbox has been read", () => {
  it("nothing is called saved", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const handle = await leftBehind(server, outbox)

    const load = outbox.load.bind(outbox)
    outbox.load = async () => {
      await new Promise<void>(resolve => setTimeout(resolve, 200))
      return load()
    }
    const line = server.line()
    line.mode = "refused"
    for (const more of [{}, { locks: new FakeLocks().forTab() }]) {
      const { adapter } = participant(server, { outbox, line, more })
      const states = new Set<string>()
      for (let ms = 0; ms < 600; ms++) {
        states.add(adapter.saveStatus().state)
        states.add(adapter.saveStatus(handle.documentId).state)
        await pass(1)
      }
      expect([...states]).toEqual(["savedOnDevice"])
      expect(adapter.saveStatus()).toMatchObject({ state: "savedOnDevice", unsavedChanges: 1 })
      adapter.disconnect()
    }
  })

  it("a tab that is not the owner does not wait for what the owner delivers", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const locks = new FakeLocks()
    participant(server, { outbox, more: { locks: locks.forTab() } })
    await pass(100)
    const { adapter } = participant(server, { outbox, more: { locks: locks.forTab() } })
    await pass(100)
    expect(adapter.saveStatus().state).toBe("saved")
  })

  it.each([true, false])("it is tried again every 5 seconds, and close says why it cannot promise anything (locks: %s)", async hasLocks => {
    useFakeTime()
    const warn = vi.spyOn(console, "warn").mockImplementation(() => {})
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const handle = await leftBehind(server, outbox)

    const load = outbox.load.bind(outbox)
    const error = new Error("no")
    outbox.load = () => Promise.reject(error)
    const more = hasLocks ? { locks: new FakeLocks().forTab() } : {}
    const { adapter } = participant(server, { outbox, more })
    await pass(1000)
    expect(adapter.saveStatus().state).toBe("saving")
    expect(adapter.outboxError).toBe(error)
    const closing = watch(adapter.close({ timeout: 1000 }))
    await pass(1000)
    expect(closing.error).toMatchObject({ reason: "outbox", documents: [], cause: error })
    outbox.load = load
    await pass(6000)
    expect(adapter.outboxError).toBeUndefined()
    expect(server.hashes(handle.documentId).size).toBe(1)
    expect(adapter.saveStatus().state).toBe("saved")
    warn.mockRestore()
  })
})

describe("a server that was restored from a backup under its old name", () => {
  it("gets from a plain document what it has lost, which is not saved meanwhile", async () => {
    useFakeTime()
    const server = new FakeServer()
    const line = server.line()
    const doc = new PlainDocument<any>("ws://server.test", DOCUMENT_ID, { environment: environment(line) })
    doc.change(d => (d.n = 1))
    await pass(100)
    server.backup()
    doc.change(d => (d.n = 2))
    await pass(100)
    expect(doc.saveStatus().state).toBe("saved")
    server.restore()
    server.commitMs = 1000
    const all = A.getChangesMetaSince(doc.doc, []).map(({ hash }) => hash)
    for (let ms = 0; ms < 5000; ms++) {
      await pass(1)
      if (doc.saveStatus().state !== "saved") continue
      expect(server.hashes(DOCUMENT_ID, server.connectedTo.get(line))).toEqual(new Set(all))
    }
    expect(doc.saveStatus().state).toBe("saved")
  })

  it("gets from a repo what it has lost, also of what is not open any more", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo } = participant(server)
    const [open, closed] = [repo.create<any>({ n: 0 }), repo.create<any>({ n: 0 })]
    await pass(1000)
    const [{ documentId }, all] = [closed, hashesOf(closed)]
    await repo.removeFromCache(documentId)
    server.restore()
    await pass(5000)
    expect(server.hashes(open.documentId)).toEqual(new Set(hashesOf(open)))
    expect(server.hashes(documentId)).toEqual(new Set(all))
    expect(adapter.saveStatus().state).toBe("saved")
  })
})

it.each(["repo", "plain document"])("what others have written is not owed while it arrives in parts (%s)", async kind => {
  useFakeTime()
  const server = new FakeServer()
  server.changesMax = 2
  const outbox = new MemoryStore()
  const others = participant(server)
  const handle = others.repo.create<any>({ n: 0 })
  await pass(1000)
  const unsaved = new Set<number>()
  let arrived: () => any
  if (kind === "repo") {
    const { adapter, repo } = participant(server, { outbox })
    const mine = repo.find<any>(handle.url)
    adapter.onSaveStatus(() => unsaved.add(adapter.saveStatus().unsavedChanges))
    await pass(1000)
    const found = await mine
    arrived = () => found.doc()
  } else {
    const doc = new PlainDocument<any>("ws://server.test", handle.documentId, { environment: environment(server.line()), outbox })
    doc.onSaveStatus(() => unsaved.add(doc.saveStatus().unsavedChanges))
    arrived = () => doc.doc
    await pass(1000)
  }
  others.line.cut()
  for (let n = 1; n <= 9; n++) handle.change(doc => (doc.n = n))
  others.line.mend()
  await pass(60_000)
  expect(arrived()).toEqual({ n: 9 })
  expect([...unsaved]).toEqual([0])
  expect([...outbox.everPut]).toEqual([])
})

describe("what is said to be on this device", () => {
  it("is there, also if another tab has taken it out because a server had it that was restored since", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { adapter, repo, line } = participant(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    server.commitMs = 1e9
    handle.change(doc => (doc.n = 1))
    await pass(100)
    expect(outbox.hashes(handle.documentId)).toEqual(hashesOf(handle).slice(1))
    outbox.changes.clear()
    server.kill()
    server.start()
    await pass(2000)
    line.cut()
    await pass(30_000)
    expect(adapter.saveStatus(handle).state).toBe("savedOnDevice")
    expect(outbox.hashes(handle.documentId)).toEqual(hashesOf(handle).slice(1))
  })

  it.each([true, false])("is there, also of a document that was imported under an id of its own (repo with storage: %s)", async hasStorage => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    outbox.writeMs = 50
    const repo = hasStorage ? { storage: new MemoryStorage() } : {}
    const first = participant(server, { outbox, repo })
    first.line.cut()
    const { documentId } = parseAutomergeUrl(generateAutomergeUrl())
    const handle = first.repo.import<any>(A.save(A.from({ n: 1 })), { docId: documentId })
    expect(first.adapter.saveStatus(handle)).toMatchObject({ state: "notSaved", unsavedChanges: 1 })
    await pass(300)
    expect(first.adapter.saveStatus(handle).state).toBe("savedOnDevice")
    expect(outbox.hashes(documentId)).toEqual(hashesOf(handle))
    first.adapter.disconnect()
    const { adapter } = participant(server, { outbox, repo })
    await pass(3000)
    expect(adapter.saveStatus(documentId).state).toBe("saved")
    expect(server.hashes(documentId)).toEqual(new Set(hashesOf(handle)))
    expect(outbox.changes.size).toBe(0)
  })

  it.each([true, false])("is not what a server had called durable, if there is no storage (another server: %s)", async isOther => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo, line } = participant(server, { outbox: new MemoryStore() })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    server.commitMs = 1e9
    server.extended = false
    server.backup()
    server.restore(isOther ? "another" : server.storageId)
    await pass(3000)
    expect(adapter.saveStatus(handle).state).toBe("saving")
    line.cut()
    await pass(30_000)
    expect(adapter.saveStatus(handle)).toMatchObject({ state: "notSaved", unsavedChanges: isOther ? 1 : 0 })
    handle.change(doc => (doc.n = 1))
    await pass(100)
    expect(adapter.saveStatus(handle)).toMatchObject({ state: isOther ? "notSaved" : "savedOnDevice", unsavedChanges: isOther ? 2 : 1 })
  })

  it("does not have what was refused and taken out of the outbox, over connections", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.refuses = ({ message }) => message === "bad"
    const outbox = new MemoryStore()
    const { adapter, repo } = participant(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    handle.change(doc => (doc.n = 1), { message: "bad" })
    await pass(1000)
    adapter.discardRejected(handle)
    server.closeAll(1006)
    await pass(5000)
    expect(adapter.saveStatus(handle).state).toBe("rejected")
    expect(outbox.changes.size).toBe(0)
  })
})

describe("a document that was deleted on the server", () => {
  const refused = (hashes: readonly string[]) => hashes.map(hash => ({ hash, reason: "the document was deleted" }))

  it("is rejected as a whole, on this connection and on the next", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo } = participant(server)
    const handle = repo.create<any>({ n: 0 })
    handle.change(doc => (doc.n = 1))
    await pass(1000)
    server.delete(handle.documentId)
    for (const _ of [1, 2]) {
      await pass(1000)
      expect(adapter.saveStatus(handle).state).toBe("rejected")
      const closing = watch(adapter.close())
      await pass(0)
      const hashes = hashesOf(handle)
      expect(closing.error).toMatchObject({ reason: "rejected", documents: [{ hashes, rejected: refused(hashes) }] })
      server.closeAll(1006)
      await pass(1000)
    }
    handle.change(doc => (doc.n = 2))
    await pass(1000)
    expect(adapter.saveStatus(handle)).toMatchObject({ state: "rejected", unsavedChanges: hashesOf(handle).length })
    repo.delete(handle.documentId)
    const closing = watch(adapter.close())
    await pass(100)
    expect(closing.isDone).toBe(true)
  })

  it("is rejected when a later session opens it", async () => {
    const { server, outbox, storage, first, handle } = await savedSession()
    first.adapter.disconnect()
    server.delete(handle.documentId)
    const { adapter, repo } = participant(server, { outbox, repo: { storage } })
    void repo.find(handle.url)
    await pass(1000)
    expect(adapter.saveStatus(handle).state).toBe("rejected")
    const saved = watch(adapter.whenSaved(handle))
    await pass(0)
    expect(saved.error.documents).toEqual([{ documentId: handle.documentId, hashes: hashesOf(handle), rejected: refused(hashesOf(handle)) }])
  })

  it("is not called saved by a later session that opens it offline", async () => {
    const { server, outbox, storage, first, handle } = await savedSession()
    expect(outbox.durableHeads.size).toBe(1)
    server.delete(handle.documentId)
    await pass(1000)
    first.adapter.disconnect()
    const line = server.line()
    line.mode = "silent"
    const later = participant(server, { outbox, repo: { storage }, line })
    void later.repo.find(handle.url)
    await pass(1000)
    expect(later.adapter.saveStatus(handle).state).toBe("savedOnDevice")
  })

  it("as a plain document is rejected, too", async () => {
    useFakeTime()
    const server = new FakeServer()
    const doc = new PlainDocument<any>("ws://server.test", DOCUMENT_ID, { environment: environment(server.line()) })
    doc.change(d => (d.n = 1))
    await pass(100)
    server.delete(DOCUMENT_ID)
    for (const _ of [1, 2]) {
      await pass(1000)
      expect(doc.saveStatus().state).toBe("rejected")
      const closing = watch(doc.close())
      await pass(0)
      expect(closing.error.documents).toEqual([{ documentId: DOCUMENT_ID, hashes: A.getHeads(doc.doc), rejected: refused(A.getHeads(doc.doc)) }])
      server.closeAll(1006)
    }
    doc.disconnect()
  })

  it("is not opened as a plain one, and that is said at once", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.delete(DOCUMENT_ID)
    const opening = watch(openDocument("ws://server.test", DOCUMENT_ID, { environment: environment(server.line()) }))
    await pass(100)
    expect(String(opening.error)).toContain("the document was deleted")
  })
})

describe("a document that was deleted", () => {
  it("does not come back from the outbox", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const handle = await leftBehind(server, outbox)

    const line = server.line()
    line.mode = "refused"
    const { adapter, repo } = participant(server, { outbox, line })
    await pass(1000)
    expect(adapter.saveStatus(handle.documentId).state).toBe("savedOnDevice")
    repo.delete(handle.documentId)
    await pass(100)
    expect(adapter.saveStatus(handle.documentId).state).toBe("saved")
    expect(outbox.changes.size).toBe(0)
    line.mode = "up"
    await pass(60_000)
    expect(server.hashes(handle.documentId).size).toBe(0)
  })

  it("does not come back if it is deleted before the outbox has been read", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const handle = await leftBehind(server, outbox)
    const { adapter, repo } = participant(server, { outbox })
    repo.delete(handle.documentId)
    await pass(10_000)
    expect(server.hashes(handle.documentId).size).toBe(0)
    expect(outbox.changes.size).toBe(0)
    expect(adapter.saveStatus().state).toBe("saved")
  })
})

it("a copy that shares its changes with another document is delivered as well when its tab has died", async () => {
  useFakeTime()
  const server = new FakeServer()
  const outbox = new MemoryStore()
  const locks = new FakeLocks()
  const [mine, others] = [locks.forTab(), locks.forTab()]
  const lost = participant(server, { outbox })
  lost.line.cut()
  const original = lost.repo.create<any>({ n: 0 })
  await pass(100)
  lost.adapter.disconnect()
  const owner = participant(server, { outbox, more: { locks: mine } })
  await pass(6000)
  expect(server.hashes(original.documentId).size).toBe(1)

  const tab = participant(server, { outbox, more: { locks: others } })
  await pass(6000)
  tab.line.cut()
  const copy = tab.repo.import<any>(A.save(original.doc()))
  await pass(100)
  others.die()
  tab.adapter.disconnect()
  await pass(10_000)
  expect(server.hashes(copy.documentId)).toEqual(new Set(hashesOf(original)))
  expect(outbox.changes.size).toBe(0)
  expect(owner.adapter.saveStatus().state).toBe("saved")
})

/** What a step may do beside the usual accidents. */
type Disaster = Step | { do: "backup" | "rollback" | "replace" | "wait for saved" } | { do: "reload"; document: number }

const disasters = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: schedule(3) as fc.Arbitrary<Disaster[]> },
    { weight: 1, arbitrary: fc.constantFrom<Disaster[]>([{ do: "backup" }], [{ do: "rollback" }], [{ do: "replace" }]) },
    { weight: 1, arbitrary: fc.constant<Disaster[]>([{ do: "wait for saved" }]) },
    { weight: 2, arbitrary: fc.nat(1).map<Disaster[]>(document => [{ do: "reload", document }]) }
  ),
  { maxLength: 14 }
).map(all => all.flat())

/** Remembers all that a client ever had, and compares what it says with what the server has. */
class Witness {
  readonly #had = new Map<string, Set<string>>()
  readonly failures = new Set<string>()

  constructor(
    readonly server: FakeServer,
    readonly line: Line
  ) {}

  saw(documentId: string, hashes: readonly string[]): void {
    if (!this.#had.has(documentId)) this.#had.set(documentId, new Set())
    for (const hash of hashes) this.#had.get(documentId)!.add(hash)
  }

  had(documentId: string): string[] {
    return [...(this.#had.get(documentId) ?? [])]
  }

  /** All documents, or this one, are said to be durable up to these hashes. */
  check(who: string, documentId?: string, hashes?: readonly string[]): void {
    const documents = this.server.connectedTo.get(this.line) ?? new Map()
    for (const id of documentId === undefined ? this.#had.keys() : [documentId]) {
      const durable = this.server.hashes(id, documents)
      const missing = (hashes ?? this.had(id)).filter(hash => !durable.has(hash))
      if (missing.length > 0) this.failures.add(`${who}: ${id} has ${missing.length} changes that are not durable`)
    }
  }

  checkStatuses({ adapter }: Pick<Participant, "adapter">): void {
    for (const id of this.#had.keys()) if (adapter.saveStatus(id).state === "saved") this.check("saved", id)
    if (adapter.saveStatus().state === "saved") this.check("all saved")
  }
}

async function liveThrough(steps: Disaster[], { hasStorage, restarts, extended }: { hasStorage: boolean; restarts: boolean; extended: boolean }) {
  forgetTimers()
  const server = new FakeServer()
  server.extended = extended
  const issuer = new Issuer(server)
  const outbox = new MemoryStore()
  const storage = new MemoryStorage()
  const line = server.line()
  const witness = new Witness(server, line)
  const begin = () => {
    // Another session has nothing but what is stored.
    const repo = hasStorage || restarts ? { storage } : {}
    const one = participant(server, { outbox, line, repo, token: () => issuer.current })
    endSession()
    endSession = one.adapter.onSaveStatus(() => witness.checkStatuses(one))
    return one
  }
  let endSession = () => {}
  let one = begin()
  const ids: Array<string | undefined> = [undefined, undefined]
  const handles: Array<DocHandle<any> | undefined> = [undefined, undefined]
  const look = () => {
    for (const handle of handles) if (handle?.isReady()) witness.saw(handle.documentId, hashesOf(handle))
    witness.checkStatuses(one)
  }
  const edit = (document: number) => {
    if (ids[document] === undefined) ids[document] = (handles[document] = one.repo.create<any>({ n: 0 })).documentId
    handles[document]?.change(doc => (doc.n += 1))
    look()
  }
  const find = (document: number) => {
    const id = ids[document]
    if (id === undefined) return
    handles[document] = undefined
    one.repo.find<any>(id as any).then(
      handle => (handles[document] = handle),
      () => {}
    )
  }
  const scene = { server, line, issuer, edit }
  for (const step of steps) {
    if (step.do === "backup") server.backup()
    else if (step.do === "replace" || (step.do === "rollback" && restarts)) server.replace()
    else if (step.do === "rollback") server.restore()
    else if (step.do === "reload") {
      const handle = handles[step.document]
      // automerge-repo may store an unloaded document as an empty one, and then another session has nothing of it.
      if (!handle || restarts) continue
      handles[step.document] = undefined
      await one.repo.removeFromCache(handle.documentId)
      find(step.document)
    } else if (step.do === "wait for saved") {
      for (const id of ids) {
        if (id === undefined) continue
        const had = witness.had(id)
        one.adapter.whenSaved(id, { timeout: 8000 }).then(
          () => witness.check("whenSaved", id, had),
          () => {}
        )
      }
    } else await play([step as Step], scene)
    await pass(0)
    look()
  }
  if (restarts) {
    one.adapter.disconnect()
    await pass(300)
    one = begin()
    ids.forEach((_, document) => find(document))
    for (let ms = 0; ms < 100; ms++) {
      await pass(20)
      look()
    }
  }
  const closing = watch(one.adapter.close({ timeout: 3000 }).then(() => witness.check("close")))
  await pass(3000)
  if (!closing.isDone) {
    repair(server, line, issuer)
    await pass(100_000)
    const again = watch(one.adapter.close({ timeout: 30_000 }).then(() => witness.check("close")))
    await pass(31_000)
    expect(again.error?.documents ?? again.error).toBeUndefined()
    expect(again.isDone).toBe(true)
  }
  expect([...witness.failures]).toEqual([])
}

it("holds for a plain document at every step, over accidents and servers that are restored or replaced", async () => {
  useFakeTime()
  const property = fc.asyncProperty(disasters, fc.nat(3), async (steps, inTheBeginning) => {
    forgetTimers()
    const server = new FakeServer()
    const issuer = new Issuer(server)
    const line = server.line()
    const witness = new Witness(server, line)
    let initial = A.init<any>()
    for (let n = 0; n < inTheBeginning; n++) initial = A.change(initial, d => (d.n = n))
    const options = { environment: environment(line), token: () => issuer.current, outbox: new MemoryStore() }
    const doc = new PlainDocument<any>("ws://server.test", DOCUMENT_ID, { ...options, initial: A.load(A.save(initial)) })
    const look = () => {
      witness.saw(DOCUMENT_ID, A.getChangesMetaSince(doc.doc, []).map(({ hash }) => hash))
      if (doc.saveStatus().state === "saved") witness.check("saved", DOCUMENT_ID)
    }
    doc.onSaveStatus(look)
    const edit = () => doc.change(d => (d.m = (d.m ?? 0) + 1))
    for (const step of steps) {
      if (step.do === "backup") server.backup()
      else if (step.do === "replace") server.replace()
      else if (step.do === "rollback") server.restore()
      else if (step.do === "wait for saved") {
        const had = witness.had(DOCUMENT_ID)
        doc.whenSaved({ timeout: 8000 }).then(
          () => witness.check("whenSaved", DOCUMENT_ID, had),
          () => {}
        )
      } else if (step.do !== "reload") await play([step as Step], { server, line, issuer, edit })
      await pass(0)
      look()
    }
    repair(server, line, issuer)
    await pass(100_000)
    const closing = watch(doc.close({ timeout: 30_000 }).then(() => witness.check("close")))
    await pass(31_000)
    expect(closing).toEqual({ isDone: true })
    expect([...witness.failures]).toEqual([])
  })
  await fc.assert(property, runs(400))
}, 300_000)

it("holds for a repo at every step, over reloads, accidents, and servers that are restored or replaced", async () => {
  useFakeTime()
  const world = fc.record({ hasStorage: fc.boolean(), restarts: fc.boolean(), extended: fc.boolean() })
  await fc.assert(fc.asyncProperty(disasters, world, liveThrough), runs(500))
}, 300_000)
