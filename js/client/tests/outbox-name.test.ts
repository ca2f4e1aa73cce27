import { IDBFactory } from "fake-indexeddb"
import { afterEach, expect, it } from "vitest"
import { FakeLocks } from "./fake/locks.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { hashesOf, MemoryStore, participant } from "./fake/world.js"

afterEach(() => {
  delete (globalThis as any).indexedDB
})

it("an outbox with a name has a database and locks of its own: one user's changes are not sent for another", async () => {
  useFakeTime()
  const factory = new IDBFactory()
  ;(globalThis as any).indexedDB = factory
  const locks = new FakeLocks()
  const server = new FakeServer()
  for (const options of [{}, { outboxName: "ada" }, { outboxName: "bob" }]) {
    participant(server, { outbox: undefined as any, more: { locks: locks.forTab() }, ...options })
  }
  for (let n = 0; n < 100; n++) await pass(10)
  expect((await factory.databases()).map(({ name }) => name)).toEqual(["highwater ws://server.test/", "highwater ws://server.test/ ada", "highwater ws://server.test/ bob"])
  const { held = [] } = await locks.forTab().query()
  const owners = held.map(({ name }) => name).filter(name => name?.endsWith(" owner"))
  expect(owners).toHaveLength(3)
})

it("what the server has refused can be taken out of the outbox, and what it may take stays", async () => {
  useFakeTime()
  const server = new FakeServer()
  server.refuses = ({ message }) => message === "bad"
  const outbox = new MemoryStore()
  const first = participant(server, { outbox })
  const handle = first.repo.create<any>({ n: 0 })
  await pass(1000)
  handle.change(doc => (doc.n = 1), { message: "bad" })
  handle.change(doc => (doc.n = 2))
  const other = first.repo.create<any>({ n: 0 })
  await pass(1000)
  first.line.cut()
  other.change(doc => (doc.n = 1))
  await pass(100)
  const lost = hashesOf(handle).slice(1)
  expect(first.adapter.discardRejected(handle).map(({ hash }) => hash)).toEqual(lost)
  expect(first.adapter.discardRejected(other)).toEqual([])
  await pass(100)
  expect(outbox.hashes(handle.documentId)).toEqual([])
  expect(outbox.hashes(other.documentId)).toHaveLength(1)
  // The document still has them, so nobody may call it saved.
  expect(first.adapter.saveStatus(handle)).toMatchObject({ state: "rejected", unsavedChanges: 2 })
  first.adapter.disconnect()

  const second = participant(server, { outbox })
  const found = second.repo.find<any>(handle.url)
  await pass(3000)
  expect((await found).doc()).toEqual({ n: 0 })
  expect(second.adapter.saveStatus()).toMatchObject({ state: "saved", unsavedChanges: 0 })
  expect(server.hashes(other.documentId).size).toBe(2)
})
