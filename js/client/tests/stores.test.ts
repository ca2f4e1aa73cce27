// Every outbox store keeps the same promises.

import { existsSync } from "node:fs"
import { appendFile, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { IDBDatabase, IDBFactory, IDBTransaction } from "fake-indexeddb"
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest"
import { IndexedDBStore } from "../src/core/indexeddb-store.js"
import type { DurableHeads, OutboxBatch, OutboxChange, OutboxStore } from "../src/core/outbox.js"
import { FileOutboxStore } from "../src/node/index.js"

const row = (documentId: string, hash: string, deps: string[] = []): OutboxChange => ({
  documentId,
  hash,
  deps,
  bytes: new Uint8Array([1, 2, 255]),
  since: 7,
  writer: "me",
})

const batch = (some: Partial<OutboxBatch>): OutboxBatch => ({
  put: [],
  remove: [],
  durableHeads: new Map(),
  ...some,
})

let folder: string
let factory: IDBFactory
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "highwater-outbox-"))
  factory = new IDBFactory()
})
afterEach(() => rm(folder, { recursive: true }))

type Store = OutboxStore & { close(): Promise<void> }

const opened: Store[] = []
afterEach(async () => {
  for (const store of opened.splice(0)) await store.close()
})

function toBeClosed<S extends Store>(store: S): S {
  opened.push(store)
  return store
}

const openFile = (path: string) => toBeClosed(new FileOutboxStore(path))

const kinds: Array<[string, () => Store]> = [
  ["IndexedDBStore", () => toBeClosed(new IndexedDBStore("outbox", factory))],
  ["FileOutboxStore", () => openFile(join(folder, "outbox"))],
]

describe.each(kinds)("%s", (_, open) => {
  it("is empty at first", async () => {
    expect(await open().load()).toEqual({ changes: [], durableHeads: new Map(), serverId: undefined })
  })

  it("gives back what was written, in the order of writing, also to its successor", async () => {
    const store = open()
    await store.write(batch({ put: [row("b", "2"), row("a", "9", ["8"])], serverId: "server" }))
    await store.sync()
    const durableHeads = new Map<string, DurableHeads | undefined>([["c", { heads: ["5", "6"], serverId: "server" }], ["d", { heads: ["7"], serverId: "server" }]])
    await store.write(batch({ put: [row("b", "1", ["2"])], durableHeads }))
    await store.write(batch({ durableHeads: new Map([["d", undefined]]) }))
    const expected = {
      changes: [row("b", "2"), row("a", "9", ["8"]), row("b", "1", ["2"])],
      durableHeads: new Map([["c", { heads: ["5", "6"], serverId: "server" }]]),
      serverId: "server",
    }
    expect(await store.load()).toEqual(expected)
    await store.close()
    expect(await open().load()).toEqual(expected)
  })

  it("removes by document and hash, and takes a change twice without harm", async () => {
    const store = open()
    await store.write(batch({ put: [row("a", "1"), row("b", "1")] }))
    await store.write(batch({ put: [row("a", "1")] }))
    await store.write(batch({ remove: [{ documentId: "a", hash: "1" }, { documentId: "a", hash: "unknown" }] }))
    await store.close()
    expect((await open().load()).changes).toEqual([row("b", "1")])
  })

  it("can be used from several places at once", async () => {
    const store = open()
    const writes = Array.from({ length: 20 }, (_, n) => store.write(batch({ put: [row("a", `${n}`)] })))
    await Promise.all([store.load(), ...writes])
    expect((await store.load()).changes).toHaveLength(20)
  })
})

describe("FileOutboxStore", () => {
  it("forgets half a line that a killed process left, and goes on", async () => {
    const path = join(folder, "outbox")
    const store = openFile(path)
    await store.write(batch({ put: [row("a", "1")] }))
    await store.close()
    await appendFile(path, '{"put":[{"documentId":"a","ha')
    const next = openFile(path)
    expect((await next.load()).changes).toEqual([row("a", "1")])
    await next.write(batch({ put: [row("a", "2")] }))
    await next.close()
    expect((await openFile(path).load()).changes).toHaveLength(2)
  })

  it("does not grow without end", async () => {
    const path = join(folder, "outbox")
    const store = openFile(path)
    for (let n = 0; n < 1200; n++) {
      await store.write(batch({ put: [row("a", `${n}`)], remove: [{ documentId: "a", hash: `${n - 1}` }] }))
    }
    expect((await readFile(path, "utf8")).split("\n").length).toBeLessThan(300)
    expect((await store.load()).changes).toEqual([row("a", "1199")])
  })

  it("reads what earlier versions wrote, but not heads of which the server is not known", async () => {
    const path = join(folder, "outbox")
    const put = [{ ...row("a", "1"), bytes: "AQL/" }]
    await writeFile(path, `${JSON.stringify({ put, remove: [], durableHeads: [["a", ["0"]]], serverId: "server" })}\n`)
    expect(await openFile(path).load()).toEqual({ changes: [row("a", "1")], durableHeads: new Map(), serverId: "server" })
  })

  it.runIf(existsSync("/dev/full"))("leaves no file open that it could not write anew", async () => {
    const path = join(folder, "outbox")
    await symlink("/dev/full", `${path}.new`)
    const store = openFile(path)
    const before = (await readdir("/proc/self/fd")).length
    for (let n = 0; n < 20; n++) await expect(store.load()).rejects.toThrow("ENOSPC")
    expect((await readdir("/proc/self/fd")).length).toBeLessThan(before + 10)
  })

  it("says that a file is none of its own", async () => {
    const path = join(folder, "outbox")
    await writeFile(path, "not an outbox\n")
    await expect(openFile(path).load()).rejects.toThrow()
  })
})

it("IndexedDBStore reads what version 1 wrote, but not heads of which the server is not known", async () => {
  await new Promise<void>((resolve, reject) => {
    const request = factory.open("outbox", 1)
    request.onupgradeneeded = () => {
      const changes = request.result.createObjectStore("changes", { keyPath: ["documentId", "hash"] })
      changes.put({ ...row("a", "1"), order: [3, 0] })
      request.result.createObjectStore("documents").put(["0"], "a")
      request.result.createObjectStore("meta").put("server", "serverId")
    }
    request.onsuccess = () => resolve(request.result.close())
    request.onerror = () => reject(request.error)
  })
  const store = toBeClosed(new IndexedDBStore("outbox", factory))
  expect(await store.load()).toEqual({ changes: [row("a", "1")], durableHeads: new Map(), serverId: "server" })
})

it("IndexedDBStore syncs in a transaction that no write waits for", async () => {
  const store = toBeClosed(new IndexedDBStore("outbox", factory))
  await store.load()
  const begin = vi.spyOn(IDBDatabase.prototype, "transaction")
  await Promise.all([store.sync(), store.write(batch({ put: [row("a", "1")], serverId: "server" }))])
  const [synced, written] = begin.mock.calls.map(([stores]) => [stores].flat())
  begin.mockRestore()
  expect(synced!.length).toBeGreaterThan(0)
  expect(written!.filter(name => synced!.includes(name))).toEqual([])
})

it("IndexedDBStore opens its database anew if an attempt is never answered", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] })
  const open = vi.spyOn(factory, "open").mockImplementationOnce(() => ({}) as IDBOpenDBRequest)
  const store = toBeClosed(new IndexedDBStore("outbox", factory))
  const loading = store.load()
  const failed = expect(loading).rejects.toThrow("has not answered")
  await vi.advanceTimersByTimeAsync(10_000)
  await failed
  vi.useRealTimers()
  expect((await store.load()).changes).toEqual([])
  expect(open).toHaveBeenCalledTimes(2)
})

it("IndexedDBStore orders changes by the clock that it is given, and by their number within a millisecond", async () => {
  const now = vi.fn(() => 5)
  const store = toBeClosed(new IndexedDBStore("outbox", factory, now))
  await store.write(batch({ put: [row("b", "2"), row("a", "1")] }))
  expect((await store.load()).changes).toEqual([row("b", "2"), row("a", "1")])
  expect(now).toHaveBeenCalledTimes(2)
})

it("hands changes to the browser in one go, as the page may be gone before an answer", async () => {
  const store = toBeClosed(new IndexedDBStore("outbox", factory))
  await store.load()
  const commit = vi.spyOn(IDBTransaction.prototype, "commit")
  const written = store.write(batch({ put: [row("a", "1")], remove: [{ documentId: "a", hash: "0" }] }))
  for (let turn = 0; turn < 5; turn++) await Promise.resolve()
  expect(commit).toHaveBeenCalledTimes(1)
  await written
  commit.mockRestore()
})
