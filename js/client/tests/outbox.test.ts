// What an outbox hands to its store, and when.

import { expect, it, vi } from "vitest"
import type { PendingChange } from "../src/core/ledger.js"
import { Outbox, type OutboxBatch, type OutboxContents, type OutboxStore } from "../src/core/outbox.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { environment } from "./fake/world.js"

/** Writes end when the test says so. */
class SlowStore implements OutboxStore {
  readonly batches: OutboxBatch[] = []
  readonly ends: Array<(error?: Error) => void> = []
  syncs = 0

  load(): Promise<OutboxContents> {
    return Promise.reject(new Error("not used"))
  }

  write(batch: OutboxBatch): Promise<void> {
    this.batches.push(batch)
    return this.#end()
  }

  sync(): Promise<void> {
    this.syncs++
    return this.#end()
  }

  #end(): Promise<void> {
    return new Promise((resolve, reject) => this.ends.push(error => (error ? reject(error) : resolve())))
  }

  get puts(): string[][] {
    return this.batches.map(({ put }) => put.map(({ hash }) => hash))
  }
}

const change = (hash: string): PendingChange => ({ hash, deps: [], bytes: new Uint8Array(), since: 0, stored: false })

function world() {
  useFakeTime()
  const store = new SlowStore()
  return { store, outbox: new Outbox(store, environment(new FakeServer().line()), "me", () => {}) }
}

it("does not let a change wait until an earlier write is done", async () => {
  const { store, outbox } = world()
  outbox.put("doc", [change("1"), change("2")])
  await pass(0)
  outbox.put("doc", [change("3")])
  await pass(0)
  expect(store.puts).toEqual([["1", "2"], ["3"]])
})

it("has a bound for the writes under way, and collects what comes then", async () => {
  const { store, outbox } = world()
  for (let n = 0; n < 100; n++) {
    outbox.put("doc", [change(`${n}`)])
    await pass(0)
  }
  const atOnce = store.puts.length
  expect(atOnce).toBeLessThan(20)
  store.ends[0]!()
  await pass(0)
  expect(store.puts).toHaveLength(atOnce + 1)
  expect(store.puts.flat()).toHaveLength(100)
})

it("has settled what was handed over when that is stored, whatever else is under way", async () => {
  const { store, outbox } = world()
  const first = change("1")
  outbox.put("doc", [first])
  await pass(0)
  let isStored = false
  void outbox.settled().then(() => (isStored = true))
  outbox.put("doc", [change("2")])
  await pass(0)
  expect(isStored).toBe(false)
  store.ends[0]!()
  await pass(0)
  expect([isStored, first.stored]).toEqual([true, true])
})

it("writes again what failed, but not what has been removed since", async () => {
  const { store, outbox } = world()
  outbox.put("doc", [change("1"), change("2")])
  await pass(0)
  outbox.remove("doc", ["1"])
  await pass(0)
  store.ends[1]!()
  store.ends[0]!(new Error("disk full"))
  await pass(0)
  expect(outbox.error).toBeDefined()
  await pass(1000)
  expect(store.puts).toEqual([["1", "2"], [], ["2"]])
  store.ends[2]!()
  await pass(0)
  expect(outbox.error).toBeUndefined()
})

it("does not call stored what has been taken out since it was handed over", async () => {
  const { store, outbox } = world()
  const taken = change("1")
  outbox.put("doc", [taken])
  await pass(0)
  outbox.remove("doc", ["1"])
  await pass(0)
  store.ends[0]!()
  store.ends[1]!()
  await pass(0)
  expect(taken.stored).toBe(false)
})

it("without a server, the disk is told to keep what was written, also what was written with one", async () => {
  const { store, outbox } = world()
  outbox.strict = false
  outbox.put("doc", [change("1")])
  await pass(0)
  store.ends[0]!()
  await pass(5000)
  expect(store.syncs).toBe(0)
  outbox.strict = true
  await pass(2000)
  expect(store.syncs).toBe(1)
  store.ends[1]!()
  await pass(60_000)
  outbox.strict = false
  outbox.strict = true
  await pass(60_000)
  expect(store.syncs).toBe(1)
})

it("tells the disk so from the start, and again if that has failed", async () => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => {})
  const { store, outbox } = world()
  outbox.put("doc", [change("1")])
  await pass(0)
  store.ends[0]!()
  await pass(2000)
  expect(store.syncs).toBe(1)
  store.ends[1]!(new Error("disk full"))
  await pass(5000)
  expect(store.syncs).toBe(2)
  store.ends[2]!()
  await pass(60_000)
  expect(store.syncs).toBe(2)
  warn.mockRestore()
})

it("does not sync while somebody types, but no more than ten seconds later", async () => {
  const { store, outbox } = world()
  const type = async (keys: number) => {
    for (let n = 0; n < keys; n++) {
      outbox.put("doc", [change(`${store.ends.length}`)])
      await pass(0)
      store.ends.at(-1)!()
      await pass(500)
    }
  }
  await type(6)
  expect(store.syncs).toBe(0)
  await pass(2000)
  expect(store.syncs).toBe(1)
  store.ends.at(-1)!()
  await type(24)
  expect(store.syncs).toBe(2)
})

it("leaves nothing behind at the signal for each time that it could not be read", async () => {
  const warn = vi.spyOn(console, "warn").mockImplementation(() => {})
  const { outbox } = world()
  const ended = new AbortController()
  const [add, remove] = [vi.spyOn(ended.signal, "addEventListener"), vi.spyOn(ended.signal, "removeEventListener")]
  void outbox.load(ended.signal)
  await pass(60_000)
  expect(add.mock.calls.length).toBeGreaterThan(5)
  expect(remove.mock.calls.length).toBe(add.mock.calls.length - 1)
  ended.abort()
  await pass(0)
  warn.mockRestore()
})
