import { open, readFile, rename, type FileHandle } from "node:fs/promises"
import { dirname } from "node:path"
import type { DurableHeads, OutboxBatch, OutboxChange, OutboxContents, OutboxStore } from "../core/outbox.js"

interface Line {
  put?: Array<Omit<OutboxChange, "bytes"> & { bytes: string }>
  remove?: Array<[documentId: string, hash: string]>
  /** Without a value, they are removed. Earlier versions wrote `durableHeads`, which did not say of which server; those do not count. */
  headsOn?: Array<[documentId: string, durable?: DurableHeads]>
  serverId?: string
}

interface State {
  changes: Map<string, OutboxChange>
  durableHeads: Map<string, DurableHeads>
  serverId: string | undefined
}

// The log is written anew when it has grown to this many times what it holds.
const GROWTH_MAX = 4
const LINES_MIN = 1000

/**
 * An outbox in one file, with a line of JSON for each batch. One process at a time may use a file.
 */
export class FileOutboxStore implements OutboxStore {
  readonly #path: string
  #state: State | undefined
  #file: FileHandle | undefined
  #lines = 0
  #last: Promise<void> = Promise.resolve()

  constructor(path: string) {
    this.#path = path
  }

  load(): Promise<OutboxContents> {
    return this.#inTurn(() => this.#load())
  }

  write(batch: OutboxBatch): Promise<void> {
    return this.#inTurn(() => this.#append(batch))
  }

  /** Not in turn: what comes next is appended while the disk is busy with this. */
  async sync(): Promise<void> {
    const file = this.#file
    try {
      await file?.datasync()
    } catch (error) {
      // A log that was written anew meanwhile was synced whole.
      if (file === this.#file) throw error
    }
  }

  /** Closes the file. */
  close(): Promise<void> {
    return this.#inTurn(() => this.#close())
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work)
    this.#last = done.then(
      () => {},
      () => {}
    )
    return done
  }

  async #load(): Promise<OutboxContents> {
    const { changes, durableHeads, serverId } = await this.#open()
    return { changes: [...changes.values()], durableHeads: new Map(durableHeads), serverId }
  }

  async #append(batch: OutboxBatch): Promise<void> {
    const state = await this.#open()
    if (isEmpty(batch)) return
    const line = toLine(batch)
    try {
      await this.#file!.appendFile(`${JSON.stringify(line)}\n`)
    } catch (error) {
      // What a failed write has left in the file is not known: it is read anew before the next one.
      await this.#close().catch(() => {})
      throw error
    }
    apply(state, line)
    this.#lines += 1
    if (this.#lines > LINES_MIN && this.#lines > GROWTH_MAX * state.changes.size) await this.#compact(state)
  }

  async #close(): Promise<void> {
    const file = this.#file
    this.#file = undefined
    this.#state = undefined
    await file?.close()
  }

  async #open(): Promise<State> {
    if (this.#state) return this.#state
    const state: State = { changes: new Map(), durableHeads: new Map(), serverId: undefined }
    const text = await readFile(this.#path, "utf8").catch(error => {
      if (error.code === "ENOENT") return undefined
      throw error
    })
    // A process that died while it wrote leaves half a line at the end. It was never called stored.
    const lines = (text ?? "").split("\n").slice(0, -1)
    for (const line of lines) apply(state, JSON.parse(line))
    // A new file is written in the same way: what is in it is of no use before the folder knows it durably.
    const isWhole = text === "" || text?.endsWith("\n")
    if (isWhole && lines.length < LINES_MIN) {
      this.#file = await open(this.#path, "a")
      this.#lines = lines.length
    } else await this.#compact(state)
    this.#state = state
    return state
  }

  async #compact(state: State): Promise<void> {
    const fresh = `${this.#path}.new`
    const file = await open(fresh, "w")
    const { changes, durableHeads, serverId } = state
    const all = toLine({ put: [...changes.values()], remove: [], durableHeads, serverId })
    try {
      await file.appendFile(`${JSON.stringify(all)}\n`)
      await file.sync()
      await rename(fresh, this.#path)
      await syncFolder(dirname(this.#path))
    } catch (error) {
      await file.close().catch(() => {})
      throw error
    }
    await this.#file?.close()
    this.#file = file
    this.#lines = 1
  }
}

/** Makes a rename durable. Windows cannot open a folder, and does not need to. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r").catch(() => undefined)
  await folder?.sync().catch(() => {})
  await folder?.close()
}

function toLine({ put, remove, durableHeads, serverId }: OutboxBatch): Line {
  return {
    put: put.map(change => ({ ...change, bytes: Buffer.from(change.bytes).toString("base64") })),
    remove: remove.map(({ documentId, hash }) => [documentId, hash]),
    headsOn: [...durableHeads].map(([documentId, durable]) => (durable ? [documentId, durable] : [documentId])),
    ...(serverId === undefined ? {} : { serverId }),
  }
}

function isEmpty({ put, remove, durableHeads, serverId }: OutboxBatch): boolean {
  return put.length + remove.length + durableHeads.size === 0 && serverId === undefined
}

function apply(state: State, { put = [], remove = [], headsOn = [], serverId }: Line): void {
  for (const change of put) {
    const bytes = new Uint8Array(Buffer.from(change.bytes, "base64"))
    state.changes.set(`${change.documentId} ${change.hash}`, { ...change, bytes })
  }
  for (const [documentId, hash] of remove) state.changes.delete(`${documentId} ${hash}`)
  for (const [documentId, durable] of headsOn) {
    if (durable) state.durableHeads.set(documentId, durable)
    else state.durableHeads.delete(documentId)
  }
  if (serverId !== undefined) state.serverId = serverId
}
