// The client against the built server on a slow disk. The server has no setting for that, so a library that is loaded
// before it lets its syncs wait: see slow-disk.c. That takes a C compiler, which building SQLite does, too, and Linux.

import { execFile } from "node:child_process"
import { rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import * as A from "@automerge/automerge"
import { expect } from "vitest"
import { FileOutboxStore } from "../../src/node/index.js"
import { newDocumentId, openDocument } from "../../src/plain/index.js"
import { test, type World } from "./world.js"

const SOURCE = fileURLToPath(new URL("slow-disk.c", import.meta.url))
const SLOW_MS = 600
const TIMEOUT = { timeout: 20_000 }
const onLinux = test.skipIf(process.platform !== "linux")

/** Starts the server anew with a disk that can be made slow. */
async function slowDisk(world: World): Promise<{ start(): Promise<void>; end(): Promise<void> }> {
  const library = join(world.folder, "slow-disk.so")
  await promisify(execFile)("cc", ["-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"])
  const flag = join(world.folder, "disk is slow")
  await world.server.stop()
  world.server.env = { LD_PRELOAD: library, SLOW_DISK_WHILE: flag, SLOW_DISK_MS: `${SLOW_MS}` }
  await world.server.start()
  return { start: () => writeFile(flag, ""), end: () => rm(flag, { force: true }) }
}

const hashesOf = (doc: A.Doc<unknown>) => A.getChangesMetaSince(doc, []).map(({ hash }) => hash)

onLinux("on a slow disk nothing is saved before it is on it, and close waits for what is typed meanwhile", async ({ world }) => {
  const disk = await slowDisk(world)
  const { adapter, repo } = world.client({ outbox: new FileOutboxStore(join(world.folder, "outbox")) })
  const handle = repo.create<any>({ n: 0 })
  await adapter.whenSaved(handle, TIMEOUT)

  await disk.start()
  const typedAt = performance.now()
  handle.change(doc => (doc.n = 1))
  const [, first] = hashesOf(handle.doc())
  const error = await adapter.close({ timeout: SLOW_MS / 3 }).catch(error => error)
  expect(error).toMatchObject({ reason: "timeout", documents: [{ documentId: handle.documentId, hashes: [first] }] })
  expect(adapter.saveStatus(handle)).toMatchObject({ state: "saving", unsavedChanges: 1 })
  await adapter.whenSaved(handle, TIMEOUT)
  expect(performance.now() - typedAt).toBeGreaterThanOrEqual(SLOW_MS)

  handle.change(doc => (doc.n = 2))
  const closing = adapter.close(TIMEOUT)
  handle.change(doc => (doc.n = 3))
  await closing
  // In the moment in which it resolves.
  await world.server.kill9()
  await disk.end()
  await world.server.start()
  const found = await world.client().repo.find<any>(handle.url)
  expect(found.doc().n).toBe(3)
  expect(hashesOf(found.doc())).toEqual(hashesOf(handle.doc()))
})

onLinux("a server that is killed while its disk is busy: what was not saved comes from the client again", async ({ world }) => {
  const disk = await slowDisk(world)
  const doc = await openDocument<any>(world.server.url, newDocumentId(), { backoff: { min: 50, max: 500 }, timeout: 20_000 })
  doc.change(d => (d.n = 0))
  await doc.whenSaved(TIMEOUT)
  await disk.start()
  for (let n = 1; n <= 20; n++) doc.change(d => (d.n = n))
  const closing = doc.close(TIMEOUT)
  await new Promise(resolve => setTimeout(resolve, SLOW_MS / 6))
  expect(doc.saveStatus()).toMatchObject({ state: "saving", unsavedChanges: 20 })
  await world.server.kill9()
  await world.server.start()
  await closing
  await world.server.kill9()
  await disk.end()
  await world.server.start()
  const other = await openDocument<any>(world.server.url, doc.documentId, TIMEOUT)
  expect(hashesOf(other.doc).sort()).toEqual(hashesOf(doc.doc).sort())
  other.disconnect()
})
