// How long it takes to learn whether one change is durable: by asking the server for its hash, and by looking
// through the changes of the loaded document, which is what there is without that question.
//
//   node bench/is-saved.mjs [--sizes 1000,200000]

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import * as A from "@automerge/automerge"
import { generateAutomergeUrl } from "@automerge/automerge-repo"
import { build } from "esbuild"
import { Server } from "../../interop/lib/server.mjs"

const QUESTIONS = 200
const LISTINGS = 5
const CHANGES_PER_POST = 20_000

const { values } = parseArgs({ options: { sizes: { type: "string", default: "1000,200000" } } })
const sizes = values.sizes.split(",").map(Number)

const { openDocument } = await bundledClient()
const folder = await mkdtemp(join(tmpdir(), "highwater-is-saved-"))
const server = await new Server(join(folder, "data"), "highwater").start()
const rows = []
try {
  for (const size of sizes) rows.push(await measure(size))
} finally {
  await server.kill9()
  await rm(folder, { recursive: true })
}
console.log("| changes | `isSaved(hash)`, p50 | p99 | `GET …/changes/{hash}`, p50 | p99 | load the document | `getAllChanges` | find the hash in them |")
console.log("|---|---|---|---|---|---|---|---|")
for (const cells of rows) console.log(`| ${cells.join(" | ")} |`)

async function measure(size) {
  const id = generateAutomergeUrl()
  const doc = typed(size)
  await post(id, doc)
  const hashes = A.getChangesMetaSince(doc, []).map(({ hash }) => hash)
  const saved = A.save(doc)

  const asked = await openDocument(server.url, id)
  const isSaved = await times(QUESTIONS, hashes, hash => asked.isSaved(hash))
  await asked.close()
  const got = await times(QUESTIONS, hashes, async hash => {
    const answer = await fetch(`${server.url.replace(/^ws/, "http")}/v1/docs/${id}/changes/${hash}`)
    await answer.arrayBuffer()
    return answer.ok
  })

  const loading = await times(1, [saved], bytes => A.load(bytes) !== undefined)
  const loaded = A.load(saved)
  const listed = await times(LISTINGS, hashes, () => A.getAllChanges(loaded).length === size)
  const changes = A.getAllChanges(loaded)
  const looked = await times(LISTINGS, hashes, hash => changes.some(change => A.decodeChange(change).hash === hash))
  return [size.toLocaleString("en"), p50(isSaved), p99(isSaved), p50(got), p99(got), p50(loading), p50(listed), p50(looked)]
}

/** A text, one character a change. */
function typed(size) {
  let doc = A.from({ text: "" })
  for (let n = 1; n < size; n++) doc = A.change(doc, d => A.splice(d, ["text"], n - 1, 0, "x"))
  return doc
}

async function post(id, doc) {
  const changes = A.getAllChanges(doc)
  for (let at = 0; at < changes.length; at += CHANGES_PER_POST) {
    const body = Buffer.concat(changes.slice(at, at + CHANGES_PER_POST))
    const answer = await fetch(`${server.url.replace(/^ws/, "http")}/v1/docs/${id}/changes`, { method: "POST", body })
    if (!answer.ok) throw new Error(`the server answered ${answer.status}: ${await answer.text()}`)
  }
}

/** Milliseconds of so many calls, each of which must say yes, for hashes spread over the history. */
async function times(count, choices, work) {
  const found = []
  for (let n = 0; n < count; n++) {
    const choice = choices[Math.floor(((n * 0.618) % 1) * choices.length)]
    const start = performance.now()
    const isThere = await work(choice)
    found.push(performance.now() - start)
    if (!isThere) throw new Error(`${choice} should be there`)
  }
  return found.sort((a, b) => a - b)
}

function p50(sorted) {
  return milliseconds(sorted[Math.floor(sorted.length / 2)])
}

function p99(sorted) {
  return milliseconds(sorted[Math.floor(sorted.length * 0.99)])
}

function milliseconds(ms) {
  return ms < 10 ? `${ms.toFixed(2)} ms` : `${Math.round(ms).toLocaleString("en")} ms`
}

/** The client from its sources, with this folder's automerge. */
async function bundledClient() {
  const outfile = fileURLToPath(new URL("../dist/node/plain.mjs", import.meta.url))
  await build({
    entryPoints: [fileURLToPath(new URL("../../client/src/plain/index.ts", import.meta.url))],
    outfile,
    bundle: true,
    format: "esm",
    platform: "node",
    external: ["@automerge/*", "ws"],
  })
  return import(outfile)
}
