// Folders of automerge-repo's Node server go in, are served, and come out again for the Node server to open.

import { execFile } from "node:child_process"
import { readdir, readFile, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { Repo } from "@automerge/automerge-repo"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { describe, expect } from "vitest"
import { converged, newest, sameHeads, versions } from "../lib/clients.mjs"
import { highwaterBinary, serverKind } from "../lib/server.mjs"
import { breath } from "../lib/wait.mjs"
import { test } from "../lib/world.mjs"

/** Runs a command of the program that reports in JSON. Its exit code is in the answer. */
async function highwater(...args) {
  const run = promisify(execFile)(highwaterBinary(), [...args, "--json"], { maxBuffer: 64 << 20 })
  const { stdout, stderr, code = 0 } = await run.catch(error => error)
  if (!stdout) throw new Error(`highwater ${args.join(" ")} ended with ${code}: ${stderr}`)
  return { code, ...JSON.parse(stdout) }
}

/** A repo on a folder, without a network: the way the Node server keeps documents. */
const repoOn = folder => new Repo({ storage: new NodeFSStorageAdapter(folder) })

async function filesBelow(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries.filter(entry => entry.isFile()).map(entry => join(entry.parentPath ?? entry.path, entry.name))
}

/** Documents as people have them: written in one go, edited over several runs, with branches, with a long text. */
async function fill(folder) {
  let repo = repoOn(folder)
  const notes = repo.create({ title: "tide table", lines: [] })
  const text = repo.create({ text: "" })
  const branches = repo.create({ by: {} })
  const empty = repo.create()
  for (let i = 0; i < 40; i++) {
    notes.change(doc => doc.lines.push(`line ${i}`))
    text.change(doc => (doc.text += `word ${i} `))
    // The storage waits 100 ms before it saves; some of these become files of their own.
    if (i % 10 === 0) await breath(120)
  }
  const fork = repo.clone(branches)
  branches.change(doc => (doc.by.one = 1))
  fork.change(doc => (doc.by.two = new Date(86_400_000)))
  branches.merge(fork)
  await repo.flush()
  await repo.shutdown()

  // A second run adds changes to what is there, in files beside the snapshots.
  repo = repoOn(folder)
  const again = await repo.find(notes.url)
  again.change(doc => (doc.title = "tide table, second run"))
  await repo.flush()
  await repo.shutdown()
  return [notes, text, branches, fork, empty].map(handle => handle.url)
}

/** What a repo on a folder makes of documents: heads and values. */
async function read(folder, urls) {
  const repo = repoOn(folder)
  const found = new Map()
  for (const url of urls) {
    const handle = await repo.find(url)
    found.set(url, { heads: handle.heads(), value: structuredClone(handle.doc()) })
  }
  await repo.shutdown()
  return found
}

describe.skipIf(serverKind !== "highwater")("a Node server's folder", () => {
  test("goes in, is synced, comes out, and opens again with equal heads and values", async ({ world }) => {
    const [node, back] = [join(world.folder, "node"), join(world.folder, "back")]
    const urls = await fill(node)
    const before = await read(node, urls)
    const kinds = (await filesBelow(node)).map(path => path.split("/").at(-2))
    expect(kinds).toContain("snapshot")
    expect(kinds).toContain("incremental")

    await world.server.stop()
    const imported = await highwater("import", node, "--data-dir", world.server.dataDir)
    expect(imported).toMatchObject({ code: 0, documents: urls.length, refused_files: [], odd_names: [], ignored: [] })
    await world.server.start()

    const reader = await world.client(newest)
    for (const url of urls) {
      const handle = await reader.find(url)
      expect(handle.heads().slice().sort()).toEqual(before.get(url).heads.slice().sort())
      expect(handle.doc()).toEqual(before.get(url).value)
    }
    const editor = await reader.find(urls[0])
    editor.change(doc => doc.lines.push("written after the move"))
    await reader.saved(editor)

    // The server runs on meanwhile.
    const exported = await highwater("export", "--data-dir", world.server.dataDir, "--to", back, "--format", "nodefs")
    expect(exported).toMatchObject({ code: 0, written: urls.length, failed: [] })
    const after = await read(back, urls)
    for (const url of urls) {
      const expected = url === urls[0] ? { heads: editor.heads(), value: editor.doc() } : before.get(url)
      expect(sameHeads(after.get(url).heads, expected.heads)).toBe(true)
      expect(after.get(url).value).toEqual(expected.value)
    }

    // A Node server goes on with it, and what it adds comes back.
    const repo = repoOn(back)
    const handle = await repo.find(urls[0])
    handle.change(doc => doc.lines.push("written by the Node server again"))
    await repo.flush()
    await repo.shutdown()
    await world.server.stop()
    const again = await highwater("import", back, "--data-dir", world.server.dataDir)
    expect(again).toMatchObject({ code: 0, changes: 1, extended: 1, refused_files: [] })
  })

  test("with damaged files goes in without them, and they are named", async ({ world }) => {
    const node = join(world.folder, "node")
    const urls = await fill(node)
    const files = await filesBelow(node)
    const of = (url, kind) => {
      const id = url.replace("automerge:", "")
      return files.filter(path => path.includes(join(id.slice(0, 2), id.slice(2), kind)))
    }
    // One file cut in the middle, as a power cut leaves it, and one with a byte changed.
    const [torn] = of(urls[1], "snapshot")
    await truncate(torn, (await readFile(torn)).length >> 1)
    const [changed] = of(urls[2], "snapshot")
    const bytes = await readFile(changed)
    bytes[bytes.length >> 1] ^= 0x10
    await writeFile(changed, bytes)

    await world.server.stop()
    const imported = await highwater("import", node, "--data-dir", world.server.dataDir)
    expect(imported.code).toBe(1)
    expect(imported.refused_files.map(refused => refused.file).sort()).toEqual([torn, changed].sort())
    const checked = await highwater("doctor", "--deep", "--data-dir", world.server.dataDir)
    expect(checked).toMatchObject({ code: 0, ok: true })
    await world.server.start()
    const reader = await world.client(newest)
    for (const url of [urls[0], urls[3]]) expect((await reader.find(url)).doc()).toBeDefined()
    expect((await reader.find(urls[0])).doc().title).toBe("tide table, second run")
  })
})

describe.skipIf(serverKind !== "highwater")("a backup", () => {
  test.for(versions)("of a running server is restored as another server, and a client brings what it lacks: $name", async (version, { world }) => {
    const { client: author } = await world.clientOnLine(version)
    const handle = author.create({ lines: ["before"] })
    await author.saved(handle)
    const backup = join(world.folder, "backup.db")
    expect(await highwater("backup", "--data-dir", world.server.dataDir, "--to", backup)).toMatchObject({ code: 0, documents: 1 })
    handle.change(doc => doc.lines.push("after"))
    await author.saved(handle)

    // The disk is lost; the client that wrote the rest is still there.
    const lost = version === newest && author.storageIdOfServer()
    const gone = author.disconnected()
    await world.server.kill9()
    await gone
    world.server.dataDir = join(world.folder, "restored")
    expect(await highwater("restore", "--from", backup, "--data-dir", world.server.dataDir)).toMatchObject({ code: 0 })
    await world.server.start()
    await author.connected()
    // What the old server acknowledged is no claim about this one.
    if (version === newest) expect(author.storageIdOfServer()).not.toBe(lost)
    const reader = await world.client(version)
    const found = await reader.find(handle.url)
    await converged([[author, handle], [reader, found]], doc => doc.lines.join() === "before,after")
    await author.saved(handle)
  })
})
