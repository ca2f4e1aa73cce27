import type { DurableHeads, OutboxBatch, OutboxChange, OutboxContents, OutboxStore } from "./outbox.js"

// 1: heads did not say of which server they are. 2: there was no store for syncs.
const VERSION = 3
const CHANGES = "changes"
const DOCUMENTS = "documents"
const META = "meta"
const SERVER_ID = "serverId"
// A store of its own: a transaction waits for those before it that share a store, and a page that ends meanwhile
// takes it along. The slow one that syncs must not keep changes waiting.
const SYNCS = "syncs"
const SYNC = "last"
const OPEN_MS = 10_000

/** A change with its place in the order of writing: when, and which one of that millisecond. */
type Row = OutboxChange & { readonly order: readonly [at: number, count: number] }

/** An outbox in the browser's IndexedDB. `name` is the database's; servers must not share one. */
export class IndexedDBStore implements OutboxStore {
  readonly #name: string
  readonly #factory: IDBFactory
  readonly #now: () => number
  #database: Promise<IDBDatabase> | undefined
  #order: Row["order"] = [0, 0]

  constructor(name: string, factory: IDBFactory = indexedDB, now: () => number = Date.now) {
    this.#name = name
    this.#factory = factory
    this.#now = now
  }

  async load(): Promise<OutboxContents> {
    const transaction = (await this.#open()).transaction([CHANGES, DOCUMENTS, META], "readonly")
    const [rows, heads, ids, serverId] = await Promise.all([
      result<Row[]>(transaction.objectStore(CHANGES).getAll()),
      result<DurableHeads[]>(transaction.objectStore(DOCUMENTS).getAll()),
      result<IDBValidKey[]>(transaction.objectStore(DOCUMENTS).getAllKeys()),
      result<string | undefined>(transaction.objectStore(META).get(SERVER_ID)),
    ])
    const durableHeads = new Map(ids.map((id, at) => [String(id), heads[at]!]))
    const changes = rows.sort(byOrder).map(({ order: _, ...change }) => change)
    return { changes, durableHeads, serverId }
  }

  async write({ put, remove, durableHeads, serverId }: OutboxBatch): Promise<void> {
    const database = await this.#open()
    const transaction = database.transaction([CHANGES, DOCUMENTS, META], "readwrite", { durability: "relaxed" })
    const changes = transaction.objectStore(CHANGES)
    for (const change of put) changes.put({ ...change, order: this.#nextOrder() } satisfies Row)
    for (const { documentId, hash } of remove) changes.delete([documentId, hash])
    const documents = transaction.objectStore(DOCUMENTS)
    for (const [documentId, heads] of durableHeads) {
      if (heads) documents.put(heads, documentId)
      else documents.delete(documentId)
    }
    if (serverId !== undefined) transaction.objectStore(META).put(serverId, SERVER_ID)
    await committed(transaction)
  }

  /** All stores of the database share one log: with the mark, everything before it is on the disk. */
  async sync(): Promise<void> {
    const transaction = (await this.#open()).transaction(SYNCS, "readwrite", { durability: "strict" })
    // A transaction that writes nothing need not reach the disk.
    transaction.objectStore(SYNCS).put(true, SYNC)
    await committed(transaction)
  }

  /** Closes the database. */
  async close(): Promise<void> {
    ;(await this.#database)?.close()
    this.#database = undefined
  }

  /** The order of writing is the causal order within a document, as far as one tab writes. */
  #nextOrder(): Row["order"] {
    const [at, count] = this.#order
    const now = this.#now()
    this.#order = now > at ? [now, 0] : [at, count + 1]
    return this.#order
  }

  #open(): Promise<IDBDatabase> {
    this.#database ??= this.#openAnew()
    // A failed attempt must not be the last one.
    this.#database.catch(() => (this.#database = undefined))
    return this.#database
  }

  async #openAnew(): Promise<IDBDatabase> {
    const request = this.#factory.open(this.#name, VERSION)
    request.onupgradeneeded = ({ oldVersion }) => {
      const { result } = request
      if (oldVersion < 1) {
        result.createObjectStore(CHANGES, { keyPath: ["documentId", "hash"] })
        result.createObjectStore(META)
      }
      if (oldVersion === 1) result.deleteObjectStore(DOCUMENTS)
      if (oldVersion < 2) result.createObjectStore(DOCUMENTS)
      result.createObjectStore(SYNCS)
    }
    const database = await opened(request)
    // Browsers close it under memory pressure, and when a newer version of the application opens it.
    database.onclose = () => (this.#database = undefined)
    database.onversionchange = () => {
      database.close()
      this.#database = undefined
    }
    return database
  }
}

function byOrder({ order: [at, count] }: Row, { order: [otherAt, otherCount] }: Row): number {
  return at - otherAt || count - otherCount
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
}

/** Browsers sometimes never answer: then it is opened anew the next time, and what comes late is not used. */
function opened(request: IDBOpenDBRequest): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => {
      request.onsuccess = () => request.result.close()
      reject(new Error(`the browser has not answered for ${OPEN_MS} ms when its database was opened`))
    }, OPEN_MS)
    result(request).then(resolve, reject).finally(() => clearTimeout(late))
  })
}

/** Nothing waits for an answer within it, so from here on the browser finishes it also if this page is killed. */
function committed(transaction: IDBTransaction): Promise<void> {
  transaction.commit?.()
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve()
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser aborted the write to the outbox"))
    transaction.onerror = () => reject(transaction.error)
  })
}
