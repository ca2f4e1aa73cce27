import type { Environment } from "./environment.js"
import type { OwedChange, PendingChange } from "./ledger.js"

/** A change in the outbox. */
export interface OutboxChange extends OwedChange {
  /** The document it belongs to. */
  readonly documentId: string
  /** The client that wrote it; each tab is one. */
  readonly writer: string
}

/** What an outbox store holds. */
export interface OutboxContents {
  /** In the order in which they were written. */
  readonly changes: readonly OutboxChange[]
  /** Heads that were durable on the server, by document. */
  readonly durableHeads: ReadonlyMap<string, readonly string[]>
  /** Which server called them durable. */
  readonly serverId: string | undefined
}

/** Things to do in a store, all of them or none. */
export interface OutboxBatch {
  readonly put: readonly OutboxChange[]
  readonly remove: ReadonlyArray<{ readonly documentId: string; readonly hash: string }>
  readonly durableHeads: ReadonlyMap<string, readonly string[]>
  readonly serverId?: string | undefined
  /**
   * Whether this and everything before it must survive a power cut, and not only the end of the process. Such
   * a batch is empty otherwise, so that a slow disk does not keep the next changes waiting.
   */
  readonly strict: boolean
}

/** Where an outbox is kept. A failed write rejects, and is then tried again with what came since. */
export interface OutboxStore {
  /** Everything that was written. */
  load(): Promise<OutboxContents>
  /** Makes a batch durable on this device. */
  write(batch: OutboxBatch): Promise<void>
}

type Puts = Map<string, { row: OutboxChange; change: PendingChange }>
type Removes = Map<string, { documentId: string; hash: string }>
type DurableHeads = Map<string, readonly string[]>

const RETRY_MS = 1000
const SYNC_MS = 1000
const NOTHING = { put: [], remove: [], durableHeads: new Map<string, readonly string[]>() }
// Browsers' databases sometimes never answer. Then changes are better sent without having been stored.
const DEADLINE_MS = 10_000

/**
 * The changes that the server has not called durable, in durable storage on this device. While one write is
 * on its way, the next one fills: so a change is written at once, and a burst of them together.
 */
export class Outbox {
  readonly #store: OutboxStore
  readonly #environment: Environment
  readonly #writer: string
  readonly #onStored: () => void
  #put: Puts = new Map()
  #remove: Removes = new Map()
  #durableHeads: DurableHeads = new Map()
  #serverId: string | undefined
  #writing: Promise<void> | undefined
  #hurried: Promise<boolean> | undefined
  #retry: unknown
  #syncTimer: unknown
  /** Whether changes have to survive a power cut: there is no server to send to. */
  strict = false
  /** The last write's error, until one succeeds. */
  error: unknown

  constructor(store: OutboxStore, environment: Environment, writer: string, onStored: () => void) {
    this.#store = store
    this.#environment = environment
    this.#writer = writer
    this.#onStored = onStored
  }

  /** Everything that was left by earlier sessions and other tabs. */
  load(): Promise<OutboxContents> {
    return this.#inTime(this.#store.load())
  }

  /** Keeps these changes until they are removed. */
  put(documentId: string, changes: readonly PendingChange[]): void {
    for (const change of changes) {
      const { hash, deps, bytes, since } = change
      const row = { documentId, hash, deps, bytes, since, writer: this.#writer }
      this.#remove.delete(keyOf(documentId, hash))
      this.#put.set(keyOf(documentId, hash), { row, change })
    }
    this.#write()
  }

  /** The server has these. */
  remove(documentId: string, hashes: Iterable<string>): void {
    for (const hash of hashes) {
      this.#put.delete(keyOf(documentId, hash))
      this.#remove.set(keyOf(documentId, hash), { documentId, hash })
    }
    this.#write()
  }

  /** All of the document up to these heads is on the server. */
  setDurableHeads(documentId: string, heads: readonly string[]): void {
    this.#durableHeads.set(documentId, heads)
    this.#write()
  }

  /** The server that durable heads are of. */
  setServerId(serverId: string): void {
    this.#serverId = serverId
    this.#write()
  }

  /** Whether a change was handed over that is not stored yet, and no write has failed. */
  get isBusy(): boolean {
    return this.error === undefined && this.#underWay !== undefined
  }

  /** Resolves when what was handed over is stored, or could not be. Never rejects. */
  async settled(): Promise<void> {
    while (this.isBusy) await this.#underWay
  }

  get #underWay(): Promise<unknown> | undefined {
    return this.#writing ?? this.#hurried
  }

  /** The page may be gone any moment: what waits for the write on its way is handed over as well. */
  hurry(): void {
    if (this.#put.size === 0) return
    const write = this.#writeOnce().finally(() => {
      if (this.#hurried === write) this.#hurried = undefined
    })
    this.#hurried = write
  }

  #write(): void {
    if (this.#writing || this.#retry !== undefined) return
    // A turn later, so that the changes of one burst go together.
    this.#writing = Promise.resolve().then(() => this.#writeAll())
  }

  async #writeAll(): Promise<void> {
    try {
      let succeeded = true
      while (succeeded && this.#hasWork) succeeded = await this.#writeOnce()
    } finally {
      this.#writing = undefined
      this.#onStored()
      if (this.strict) this.#syncLater()
    }
  }

  /** Offline, the disk is told once in a while to keep what was written, also through a power cut. */
  #syncLater(): void {
    this.#syncTimer ??= this.#environment.setTimeout(() => {
      this.#syncTimer = undefined
      // If it fails, the writes before it still survive the end of the process, and there will be another.
      this.#inTime(this.#store.write({ ...NOTHING, strict: true })).catch(error => {
        console.warn("highwater: could not sync the outbox to disk:", error)
      })
    }, SYNC_MS)
  }

  get #hasWork(): boolean {
    return this.#put.size + this.#remove.size + this.#durableHeads.size > 0 || this.#serverId !== undefined
  }

  async #writeOnce(): Promise<boolean> {
    const [put, remove, durableHeads, serverId] = [this.#put, this.#remove, this.#durableHeads, this.#serverId]
    this.#put = new Map()
    this.#remove = new Map()
    this.#durableHeads = new Map()
    this.#serverId = undefined
    try {
      const rows = [...put.values()].map(({ row }) => row)
      const batch = { put: rows, remove: [...remove.values()], durableHeads, serverId, strict: false }
      await this.#inTime(this.#store.write(batch))
      for (const { change } of put.values()) change.stored = true
      this.error = undefined
      if (put.size > 0) this.#onStored()
      return true
    } catch (error) {
      this.#giveBack(put, remove, durableHeads)
      this.#serverId ??= serverId
      this.error = error
      this.#retry = this.#environment.setTimeout(() => {
        this.#retry = undefined
        this.#write()
      }, RETRY_MS)
      return false
    }
  }

  async #inTime<T>(work: Promise<T>): Promise<T> {
    let timer: unknown
    const late = new Promise<never>((_, reject) => {
      const error = new Error(`the outbox's store has not answered for ${DEADLINE_MS} ms`)
      timer = this.#environment.setTimeout(() => reject(error), DEADLINE_MS)
    })
    try {
      return await Promise.race([work, late])
    } finally {
      this.#environment.clearTimeout(timer)
    }
  }

  /** What could not be written is written next time, unless something newer was said about it. */
  #giveBack(put: Puts, remove: Removes, durableHeads: DurableHeads): void {
    const [newPut, newRemove] = [this.#put, this.#remove]
    this.#put = new Map([...put].filter(([key]) => !newRemove.has(key)).concat([...newPut]))
    this.#remove = new Map([...remove].filter(([key]) => !newPut.has(key)).concat([...newRemove]))
    this.#durableHeads = new Map([...durableHeads, ...this.#durableHeads])
  }
}

function keyOf(documentId: string, hash: string): string {
  return `${documentId} ${hash}`
}
