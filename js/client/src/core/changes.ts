import * as A from "@automerge/automerge/slim"

/** How many hashes the server takes in one question whether changes are durable. */
export const HASHES_MAX = 1000

/** One change of a document, as it is stored and sent. */
export interface Change {
  /** Its hash in hex, by which the server names it. */
  readonly hash: string
  /** The hashes of the changes it builds on. */
  readonly deps: readonly string[]
  /** Its raw chunk. */
  readonly bytes: Uint8Array
}

const MAGIC = [0x85, 0x6f, 0x4a, 0x83]
const CHECKSUM_END = 8
const TYPE_AT = 8
/** A change, and a compressed one. */
const CHANGE_TYPES = [1, 2]
const LENGTH_START = 9

/** All changes of the document that are not ancestors of these heads, in causal order. */
export function changesSince(doc: A.Doc<unknown>, heads: readonly string[]): Change[] {
  const have = [...heads]
  const metadata = A.getChangesMetaSince(doc, have)
  if (metadata.length === 0) return []
  const chunks = splitChunks(A.saveSince(doc, have))
  if (chunks.length !== metadata.length) throw new Error("automerge lists other changes than it saves; please report this")
  return metadata.map(({ hash, deps }, at) => {
    const bytes = chunks[at]!
    if (checksum(bytes) !== sumOf(hash)) throw new Error("automerge saves changes in another order than it lists them; please report this")
    return { hash, deps, bytes }
  })
}

/** Whether the document has the change. */
export function hasChange(doc: A.Doc<unknown>, hash: string): boolean {
  // Not hasHeads, which rebuilds the whole change, nor getMissingDeps, which takes a change that waits for others as present.
  return A.getBackend(doc).getChangeMetaByHash(hash) !== null
}

/** Whether these chunks are single changes, and one of the heads is not among them: then the rest follows. */
export function isPart(chunks: readonly Uint8Array[], heads: readonly string[]): boolean {
  const areChanges = chunks.every(chunk => CHANGE_TYPES.includes(chunk[TYPE_AT]!))
  const sums = new Set(areChanges ? chunks.map(checksum) : [])
  return sums.size > 0 && heads.some(hash => !sums.has(sumOf(hash)))
}

/** The hashes of those of these changes that the document can take. Not read one by one, as that takes seconds. */
export function hashesOf(chunks: readonly Uint8Array[], doc: A.Doc<unknown>): string[] {
  const [after] = A.applyChanges(A.clone(doc), [...chunks])
  const sums = new Set(chunks.map(checksum))
  // Others may have waited for these.
  const hashes = A.getChangesMetaSince(after, A.getHeads(doc)).flatMap(({ hash }) => (sums.has(sumOf(hash)) ? [hash] : []))
  // A whole copy, which would be kept until nobody knows when.
  A.free(after)
  return hashes
}

/** The same changes, each after those of them that it builds on. Else they stay in their order. */
export function inCausalOrder<C extends Change>(changes: readonly C[]): C[] {
  const byHash = new Map(changes.map(change => [change.hash, change]))
  const ordered = new Set<C>()
  for (const change of changes) {
    const stack = [change]
    for (let next = stack.at(-1); next !== undefined; next = stack.at(-1)) {
      const before = next.deps.map(dep => byHash.get(dep)).filter(one => one !== undefined && !ordered.has(one))
      if (before.length > 0) stack.push(...(before as C[]))
      else ordered.add(stack.pop()!)
    }
  }
  return [...ordered]
}

/** Takes concatenated chunks apart. */
export function splitChunks(bytes: Uint8Array): Uint8Array[] {
  const chunks: Uint8Array[] = []
  let start = 0
  while (start < bytes.length) {
    if (MAGIC.some((byte, at) => bytes[start + at] !== byte)) throw new Error(`no automerge chunk at byte ${start}`)
    const [length, contents] = readLength(bytes, start + LENGTH_START)
    const end = contents + length
    if (end > bytes.length) throw new Error(`the automerge chunk at byte ${start} is cut off`)
    chunks.push(bytes.slice(start, end))
    start = end
  }
  return chunks
}

/** Puts chunks one after the other. */
export function joinChunks(chunks: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const chunk of chunks) {
    joined.set(chunk, at)
    at += chunk.length
  }
  return joined
}

/** A LEB128 number and where it ends. */
function readLength(bytes: Uint8Array, at: number): [number, number] {
  let value = 0
  for (let factor = 1; ; factor *= 128) {
    const byte = bytes[at++]
    if (byte === undefined) throw new Error("the automerge chunk's length is cut off")
    value += (byte & 0x7f) * factor
    if (byte < 0x80) return [value, at]
  }
}

/** The first bytes of a change's hash are the checksum of its chunk. */
function sumOf(hash: string): string {
  return hash.slice(0, 8)
}

function checksum(chunk: Uint8Array): string {
  return [...chunk.subarray(MAGIC.length, CHECKSUM_END)].map(byte => byte.toString(16).padStart(2, "0")).join("")
}
