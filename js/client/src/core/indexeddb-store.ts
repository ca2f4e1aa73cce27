import type { OutboxBatch, OutboxChange, OutboxContents, OutboxStore } from "./outbox.js"

const VERSION = 1
const CHANGES = "changes"
const DOCUMENTS = "documents"
const META = "meta"
const SERVER_ID = "serverId"
const SYNCED = "synced"

/** An outbox in the browser's IndexedDB. `name` is the database's; servers must not share one. */
export class IndexedDBStore implements OutboxStore {
  readonly #name: string
  readonly #factory: IDBFactory
  #database: Promise<IDBDatabase> | undefined

  constructor(name: string, factory: IDBFactory = indexedDB) {
    this.#name = name
    this.#factory = factory
  }

  async load(): Promise<OutboxContents> {
    const transaction = (await this.#open()).transaction([CHANGES, DOCUMENTS, META], "readonly")
    const [changes, heads, ids, serverId] = await Promise.all([
      result<OutboxChange[]>(transaction.objectStore(CHANGES).getAll()),
      result<string[][]>(transaction.objectStore(DOCUMENTS).getAll()),
      result<IDBValidKey[]>(transaction.objectStore(DOCUMENTS).getAllKeys()),
      result<string | undefined>(transaction.objectStore(META).get(SERVER_ID)),
    ])
    const durableHeads = new Map(ids.map((id, at) => [String(id), heads[at]!]))
    return { changes, durableHeads, serverId }
  }

  async write(batch: OutboxBatch): Promise<void> {
    const database = await this.#open()
    // Two transactions, both begun at once. The first must not need this page any more, which may be gone before
    // a single answer comes. The second only tidies up: what it leaves behind is sent twice, which does no harm.
    await Promise.all([keep(database, batch), tidy(database, batch)])
  }

  /** Closes the database. */
  async close(): Promise<void> {
    ;(await this.#database)?.close()
    this.#database = undefined
  }

  #open(): Promise<IDBDatabase> {
    this.#database ??= this.#openAnew()
    // A failed attempt must not be the last one.
    this.#database.catch(() => (this.#database = undefined))
    return this.#database
  }

  async #openAnew(): Promise<IDBDatabase> {
    const request = this.#factory.open(this.#name, VERSION)
    request.onupgradeneeded = () => {
      // Keys that count up keep the order of writing, which is the causal order within a document.
      const changes = request.result.createObjectStore(CHANGES, { autoIncrement: true })
      changes.createIndex("hash", ["documentId", "hash"], { unique: true })
      request.result.createObjectStore(DOCUMENTS)
      request.result.createObjectStore(META)
    }
    const database = await result(request)
    // Browsers close it under memory pressure, and when a newer version of the application opens it.
    database.onclose = () => (this.#database = undefined)
    database.onversionchange = () => {
      database.close()
      this.#database = undefined
    }
    return database
  }
}

/** Hands everything over in one go, so that the browser finishes it also without the page. */
function keep(database: IDBDatabase, { put, durableHeads, serverId, strict }: OutboxBatch): Promise<void> {
  if (put.length + durableHeads.size === 0 && serverId === undefined && !strict) return Promise.resolve()
  const transaction = begin(database, strict)
  for (const change of put) unlessThere(transaction.objectStore(CHANGES).add(change))
  for (const [documentId, heads] of durableHeads) transaction.objectStore(DOCUMENTS).put([...heads], documentId)
  if (serverId !== undefined) transaction.objectStore(META).put(serverId, SERVER_ID)
  // A transaction that writes nothing need not reach the disk.
  if (strict) transaction.objectStore(META).put(true, SYNCED)
  const done = finished(transaction)
  // Old browsers lack it, and commit when they have asked the page whether there is more.
  transaction.commit?.()
  return done
}

function tidy(database: IDBDatabase, { remove }: OutboxBatch): Promise<void> {
  if (remove.length === 0) return Promise.resolve()
  const transaction = begin(database, false)
  const changes = transaction.objectStore(CHANGES)
  for (const { documentId, hash } of remove) {
    changes.index("hash").getKey([documentId, hash]).onsuccess = event => {
      const key = (event.target as IDBRequest).result
      if (key !== undefined) changes.delete(key)
    }
  }
  return finished(transaction)
}

function begin(database: IDBDatabase, strict: boolean): IDBTransaction {
  return database.transaction([CHANGES, DOCUMENTS, META], "readwrite", { durability: strict ? "strict" : "relaxed" })
}

/** A change that is there already stays as it is. Any other error ends the transaction. */
function unlessThere(request: IDBRequest): void {
  request.onerror = event => {
    if (request.error?.name !== "ConstraintError") return
    event.preventDefault()
    event.stopPropagation()
  }
}

function result<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result)
    request.onerror = () => reject(request.error)
  })
}

function finished(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve()
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser aborted the write to the outbox"))
    transaction.onerror = () => reject(transaction.error)
  })
}
