import type { Environment } from "./environment.js"
import type { OwedChange, PendingChange } from "./ledger.js"

/** A change in the outbox. */
export interface OutboxChange extends OwedChange {
  /** The document it belongs to. */
  readonly documentId: string
  /** The client that wrote it; each tab is one. */
  readonly writer: string
}

/** All of a document up to these heads was durable. */
export interface DurableHeads {
  readonly heads: readonly string[]
  /** On this server. */
  readonly serverId: string
}

/** What an outbox store holds. */
export interface OutboxContents {
  /** In the order in which they were written. */
  readonly changes: readonly OutboxChange[]
  /** Up to where documents were durable. */
  readonly durableHeads: ReadonlyMap<string, DurableHeads>
  /** The server of the last connection. */
  readonly serverId: string | undefined
}

/** Things to do in a store, all of them or none. */
export interface OutboxBatch {
  readonly put: readonly OutboxChange[]
  readonly remove: ReadonlyArray<{ readonly documentId: string; readonly hash: string }>
  /** `undefined` removes what was known of the document. */
  readonly durableHeads: ReadonlyMap<string, DurableHeads | undefined>
  readonly serverId?: string | undefined
}

/**
 * Where an outbox is kept. Batches take effect in the order in which they are handed over, also when several are
 * under way. A failed write rejects, and is then tried again with what came since.
 */
export interface OutboxStore {
  /** Everything that was written. */
  load(): Promise<OutboxContents>
  /** Makes a batch survive the end of the process. */
  write(batch: OutboxBatch): Promise<void>
  /**
   * Makes the batches whose writes have resolved survive a power cut, too. The disk may take long: writes that
   * come meanwhile must not wait for it.
   */
  sync(): Promise<void>
}

/** The last that was said about one thing in the store: it is to be there, or not. */
type Wish =
  | { readonly put: OutboxChange; readonly change: PendingChange }
  | { readonly remove: { readonly documentId: string; readonly hash: string } }
  | { readonly heads: readonly [documentId: string, heads: DurableHeads | undefined] }
  | { readonly serverId: string }

type Wishes = ReadonlyMap<string, Wish>

const RETRY_MS = 1000
const READ_RETRY_MS = 5000
const SYNC_MS = 1000
const SYNC_RETRY_MS = 5000
const POSTPONED_MAX = 9
const WRITES_MAX = 16
// Browsers' databases sometimes never answer. Nothing waits for them any longer than this.
const DEADLINE_MS = 10_000

/**
 * The changes that the server has not called durable, in durable storage on this device. Each turn's changes are
 * written together and at once: nothing waits for an earlier write, as the page may be gone before that is done.
 */
export class Outbox {
  readonly #store: OutboxStore
  readonly #environment: Environment
  readonly #writer: string
  readonly #onStored: () => void
  /** Everything that no write has made true yet. */
  readonly #open = new Map<string, Wish>()
  /** That of it which no write is under way for. */
  #next = new Map<string, Wish>()
  readonly #writes = new Set<Promise<void>>()
  #isScheduled = false
  #retry: unknown
  #syncTimer: unknown
  #strict = true
  /** Whether a change was written that a power cut may undo. */
  #isUnsynced = false
  /** Whether a change was written since the last look. */
  #isBusy = false
  /** How often a sync was put off because of that. */
  #postponed = 0
  /** The last write's error, until one succeeds. */
  error: unknown
  /** Why it could not be read, until it can. */
  readError: unknown

  constructor(store: OutboxStore, environment: Environment, writer: string, onStored: () => void) {
    this.#store = store
    this.#environment = environment
    this.#writer = writer
    this.#onStored = onStored
  }

  /** Whether changes have to survive a power cut: there is no server to send to. */
  set strict(strict: boolean) {
    this.#strict = strict
    this.#syncLater()
  }

  /** Everything that was left by earlier sessions and other tabs. Tries until it can be read; undefined if that is not wanted any more. */
  async load(signal: AbortSignal): Promise<OutboxContents | undefined> {
    while (!signal.aborted) {
      try {
        const contents = await this.#inTime(this.#store.load())
        this.readError = undefined
        if (signal.aborted) return undefined
        return { ...contents, changes: contents.changes.filter(change => !this.#isRemoved(change)) }
      } catch (error) {
        console.warn("highwater: could not read the outbox, will try again; what earlier sessions left is not sent until then:", error)
        this.readError = error
        this.#onStored()
        await this.#pause(READ_RETRY_MS, signal)
      }
    }
    return undefined
  }

  /** Whether the server has got it, and only the store does not know yet. */
  #isRemoved({ documentId, hash }: OutboxChange): boolean {
    const wish = this.#open.get(`change ${documentId} ${hash}`)
    return wish !== undefined && "remove" in wish
  }

  #pause(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise(resolve => {
      const end = () => {
        this.#environment.clearTimeout(timer)
        signal.removeEventListener("abort", end)
        resolve()
      }
      const timer = this.#environment.setTimeout(end, ms)
      signal.addEventListener("abort", end)
    })
  }

  /** Keeps these changes until they are removed. */
  put(documentId: string, changes: readonly PendingChange[]): void {
    for (const change of changes) {
      const { hash, deps, bytes, since } = change
      const put = { documentId, hash, deps, bytes, since, writer: this.#writer }
      this.#wish(`change ${documentId} ${hash}`, { put, change })
    }
  }

  /** The server has these. */
  remove(documentId: string, hashes: Iterable<string>): void {
    for (const hash of hashes) this.#wish(`change ${documentId} ${hash}`, { remove: { documentId, hash } })
  }

  /** Up to where the document is durable, or that nothing is known of it any more. */
  setDurableHeads(documentId: string, heads: DurableHeads | undefined): void {
    this.#wish(`heads ${documentId}`, { heads: [documentId, heads] })
  }

  /** The server that there is a connection to. */
  setServerId(serverId: string): void {
    this.#wish("server", { serverId })
  }

  /** Resolves when everything that was handed over until now is stored, or could not be. Never rejects. */
  async settled(): Promise<void> {
    const wanted = [...this.#open]
    const isOpen = () => wanted.some(([key, wish]) => this.#open.get(key) === wish)
    while (this.error === undefined && isOpen()) await Promise.race(this.#writes)
  }

  #wish(key: string, wish: Wish): void {
    this.#open.set(key, wish)
    this.#next.set(key, wish)
    this.#schedule()
  }

  #schedule(): void {
    if (this.#isScheduled || this.#retry !== undefined || this.#writes.size >= WRITES_MAX) return
    this.#isScheduled = true
    // A turn later, so that the changes of one burst go together.
    this.#follow(Promise.resolve().then(() => this.#write()))
  }

  /** The page may be gone any moment: what waits for its turn is handed over at once. */
  hurry(): void {
    if (this.#next.size > 0) this.#follow(this.#write())
  }

  #follow(write: Promise<void>): void {
    this.#writes.add(write)
    void write.then(() => {
      this.#writes.delete(write)
      this.#onStored()
      this.#syncLater()
      if (this.#next.size > 0) this.#schedule()
    })
  }

  /** Offline, the disk is told once in a while to keep what was written, also through a power cut. */
  #syncLater(ms = SYNC_MS): void {
    if (!this.#strict || !this.#isUnsynced || this.#syncTimer !== undefined) return
    this.#syncTimer = this.#environment.setTimeout(() => void this.#syncWhenQuiet(), ms)
  }

  /** While a browser syncs, its database begins nothing else, and a page that ends then takes along what waits. */
  async #syncWhenQuiet(): Promise<void> {
    const isBusy = this.#isBusy && this.#postponed < POSTPONED_MAX
    this.#isBusy = false
    let pause = SYNC_MS
    if (isBusy) this.#postponed += 1
    else if (this.#strict) pause = await this.#sync()
    this.#syncTimer = undefined
    this.#syncLater(pause)
  }

  /** Returns after how long the next may be needed. */
  async #sync(): Promise<number> {
    this.#isUnsynced = false
    this.#postponed = 0
    try {
      await this.#inTime(this.#store.sync())
      return SYNC_MS
    } catch (error) {
      // The writes before it still survive the end of the process.
      console.warn("highwater: could not sync the outbox to disk, will try again:", error)
      this.#isUnsynced = true
      return SYNC_RETRY_MS
    }
  }

  async #write(): Promise<void> {
    this.#isScheduled = false
    const wishes = this.#next
    this.#next = new Map()
    try {
      await this.#inTime(this.#store.write(batchOf(wishes)))
      if (this.#retry === undefined) this.error = undefined
      this.#fulfil(wishes)
    } catch (error) {
      this.#giveBack(wishes)
      this.error = error
      this.#retry ??= this.#environment.setTimeout(() => {
        this.#retry = undefined
        this.#schedule()
      }, RETRY_MS)
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

  #fulfil(wishes: Wishes): void {
    for (const [key, wish] of wishes) {
      // Else something newer was said about it, and that will be what is true.
      if (this.#open.get(key) !== wish) continue
      this.#open.delete(key)
      if (!("put" in wish)) continue
      wish.change.stored = true
      this.#isUnsynced = true
      this.#isBusy = true
    }
  }

  /** What could not be written is written next time, unless something newer was said about it. */
  #giveBack(wishes: Wishes): void {
    const still = [...wishes].filter(([key, wish]) => this.#open.get(key) === wish)
    this.#next = new Map([...still, ...this.#next])
  }
}

function batchOf(wishes: Wishes): OutboxBatch {
  const all = [...wishes.values()]
  return {
    put: all.flatMap(wish => ("put" in wish ? [wish.put] : [])),
    remove: all.flatMap(wish => ("remove" in wish ? [wish.remove] : [])),
    durableHeads: new Map(all.flatMap(wish => ("heads" in wish ? [wish.heads] : []))),
    serverId: all.flatMap(wish => ("serverId" in wish ? [wish.serverId] : []))[0],
  }
}
