import type * as A from "@automerge/automerge/slim"
import type { Environment } from "./environment.js"
import { UnsavedChangesError, type RejectedChange, type UnsavedDocument } from "./errors.js"
import type { OwedChange, PendingChange } from "./ledger.js"
import { Listeners } from "./listeners.js"
import type { Outbox } from "./outbox.js"
import { overallStatus, sameStatus, statusOf, type SaveStatus, type SaveStatusSource } from "./save-status.js"
import { TrackedDocument } from "./tracked-document.js"
import { Waiters, type WaitOptions } from "./waiters.js"

/** What the outbox left of one document. */
export interface RememberedDocument {
  readonly durableHeads: readonly string[]
  readonly owed: readonly OwedChange[]
}

const DURABLE_HEADS_MS = 1000

/** Knows of every document which of its changes the server has, and tells those who want to know. */
export class SaveTracker implements SaveStatusSource {
  readonly #environment: Environment
  readonly #documents = new Map<string, TrackedDocument>()
  readonly #statuses = new Map<string, SaveStatus>()
  #overall: SaveStatus | undefined
  #isOverallStale = true
  readonly #listeners = new Listeners()
  readonly #waiters: Waiters
  readonly #remembered = new Map<string, RememberedDocument>()
  readonly #headsToKeep = new Set<string>()
  #headsTimer: unknown
  #hasAskedToPersist = false
  #isConnected = false
  #serverId: string | undefined
  /** Where pending changes are kept, if anywhere. */
  outbox: Outbox | undefined
  /** Called when a document owes the server something new. */
  onOwed: (documentId: string) => void = () => {}
  /** False until what earlier sessions left is known. */
  isReady = true

  constructor(environment: Environment) {
    this.#environment = environment
    this.#waiters = new Waiters(environment)
  }

  /** Whether changes are on their way now. */
  get isConnected(): boolean {
    return this.#isConnected
  }

  set isConnected(isConnected: boolean) {
    if (this.#isConnected === isConnected) return
    this.#isConnected = isConnected
    if (this.outbox) this.outbox.strict = !isConnected
    this.changed()
  }

  /** Which server this is. If it is another one than before, nothing that was durable counts. */
  setServer(serverId: string | undefined): void {
    const isOther = this.#serverId !== undefined && serverId !== undefined && serverId !== this.#serverId
    if (serverId !== undefined && serverId !== this.#serverId) {
      this.#serverId = serverId
      this.outbox?.setServerId(serverId)
    }
    if (!isOther) return
    for (const [id, { owed }] of this.#remembered) this.#remembered.set(id, { durableHeads: [], owed })
    for (const document of this.#documents.values()) document.doubt()
    this.changed()
  }

  /** What the outbox left. */
  remember(documents: ReadonlyMap<string, RememberedDocument>, serverId: string | undefined): void {
    const isOther = this.#serverId !== undefined && serverId !== undefined && serverId !== this.#serverId
    this.#serverId ??= serverId
    for (const [id, { durableHeads, owed }] of documents) {
      const remembered = { durableHeads: isOther ? [] : durableHeads, owed }
      this.#remembered.set(id, remembered)
      const document = this.#documents.get(id)
      if (document) document.remember(remembered.durableHeads, owed)
      // What owes something counts from now on, and not only once somebody opens it.
      else if (owed.length > 0) this.document(id)
    }
    this.changed()
  }

  /** The document's record, made if there is none. */
  document(documentId: string): TrackedDocument {
    let document = this.#documents.get(documentId)
    if (!document) {
      document = new TrackedDocument(documentId, this, this.#environment.now)
      this.#documents.set(documentId, document)
      const remembered = this.#remembered.get(documentId)
      if (remembered) document.remember(remembered.durableHeads, remembered.owed)
    }
    return document
  }

  /** All documents that are known. */
  get documents(): Iterable<TrackedDocument> {
    return this.#documents.values()
  }

  /** The document was deleted: nothing of it is owed to anybody. */
  forget(documentId: string): void {
    const document = this.#documents.get(documentId)
    if (!document) return
    this.#documents.delete(documentId)
    document.isDeleted = true
    this.outbox?.remove(documentId, document.pending.keys())
    this.#statuses.delete(documentId)
    this.changed()
  }

  /** The document is this one now. */
  update(documentId: string, doc: A.Doc<unknown>): void {
    this.document(documentId).update(doc)
    this.changed(documentId)
  }

  /** A sync message from the server had these heads. */
  serverHas(documentId: string, heads: readonly string[]): void {
    this.document(documentId).serverHas(heads)
    this.changed(documentId)
  }

  /** The server called these changes durable. */
  markDurable(documentId: string, hashes: readonly string[]): void {
    this.#documents.get(documentId)?.markDurable(hashes)
    this.changed(documentId)
  }

  /** The server refused these changes for good. */
  reject(documentId: string, rejected: readonly RejectedChange[]): void {
    this.#documents.get(documentId)?.reject(rejected)
    this.changed(documentId)
  }

  /** What the server will never take is not kept for later sessions any more. */
  discardRejected(documentId: string): readonly PendingChange[] {
    const hopeless = this.#documents.get(documentId)?.hopeless ?? []
    this.outbox?.remove(documentId, hopeless.map(({ hash }) => hash))
    for (const change of hopeless) change.stored = false
    return hopeless
  }

  /** {@inheritDoc SaveStatusSource.saveStatus} */
  saveStatus(documentId?: string): SaveStatus {
    if (documentId === undefined) return this.#overallStatus()
    const known = this.#statuses.get(documentId)
    if (known) return known
    const { now } = this.#environment
    const document = this.#documents.get(documentId)
    const status = document ? statusOf(document.facts, this.#isConnected, now) : overallStatus([], now)
    this.#statuses.set(documentId, status)
    return status
  }

  /** Counted only when asked for, as it takes all documents. */
  #overallStatus(): SaveStatus {
    if (this.#overall && !this.#isOverallStale) return this.#overall
    this.#isOverallStale = false
    const all = [...this.#documents.keys()].map(id => this.saveStatus(id))
    const status = overallStatus(all, this.#environment.now)
    if (!sameStatus(this.#overall, status)) this.#overall = status
    return this.#overall!
  }

  /** {@inheritDoc SaveStatusSource.onSaveStatus} */
  onSaveStatus(listener: () => void): () => void {
    return this.#listeners.add(listener)
  }

  /**
   * Resolves when every change that these documents have now is durable on the server. Rejects with
   * {@link UnsavedChangesError} if some never will be, or not in time.
   */
  whenSaved(documentIds: readonly string[], options: WaitOptions = {}): Promise<void> {
    let waits: Array<{ document: TrackedDocument; hashes: string[] }> | undefined
    const start = () =>
      documentIds.map(id => ({ document: this.document(id), hashes: [...this.document(id).pending.keys()] }))
    const open = () => {
      if (this.isReady) waits ??= start()
      return (waits ?? start()).filter(({ document, hashes }) => !isCovered(document, hashes))
    }
    return this.#waiters.wait({
      isDone: () => this.isReady && open().length === 0,
      isHopeless: () => this.isReady && open().every(({ document, hashes }) => document.isHopeless(hashes)),
      error: (reason, cause) => {
        const documents = open().map(({ document }) => document)
        const isDeleted = documents.some(document => document.isDeleted)
        return new UnsavedChangesError(isDeleted ? "deleted" : reason, documents.map(({ unsaved }) => unsaved), cause)
      },
      ...options,
    })
  }

  /** Resolves when no document has anything unsaved any more. Rejects as {@link whenSaved}. */
  whenAllSaved(options: WaitOptions = {}): Promise<void> {
    const open = () => [...this.#documents.values()].filter(document => !document.isSaved)
    return this.#waiters.wait({
      isDone: () => this.isReady && open().length === 0,
      isHopeless: () => this.isReady && open().every(document => document.isHopeless(document.pending.keys())),
      error: (reason, cause) => new UnsavedChangesError(reason, this.unsaved(), cause),
      ...options,
    })
  }

  /** All that is not on the server. */
  unsaved(): UnsavedDocument[] {
    return [...this.#documents.values()].filter(document => !document.isSaved).map(document => document.unsaved)
  }

  /** Whether something is not on the server that could still get there. */
  get isHopeful(): boolean {
    return [...this.#documents.values()].some(document => !document.isSaved && !document.isHopeless(document.pending.keys()))
  }

  /** Nobody needs to wait any longer: the connection has ended for good. */
  stop(cause: unknown): void {
    this.#waiters.stop(cause)
  }

  /** It has been started again. */
  restart(): void {
    this.#waiters.restart()
  }

  /** For the outbox: something may have been stored, or not. */
  changed(documentId?: string): void {
    const ids = documentId === undefined ? [...this.#statuses.keys()] : [documentId]
    let differs = false
    for (const id of ids) differs = this.#refresh(id) || differs
    this.#isOverallStale = true
    this.#waiters.look()
    if (differs || documentId === undefined) this.#listeners.notify()
  }

  /** For documents: these are owed now. */
  onPending(documentId: string, changes: readonly PendingChange[]): void {
    this.#askToPersist()
    this.outbox?.put(documentId, changes)
    this.onOwed(documentId)
  }

  /** For documents: these are not owed any more. */
  onSettled(documentId: string, changes: readonly PendingChange[]): void {
    this.outbox?.remove(documentId, changes.map(({ hash }) => hash))
  }

  /** Once, when there is something to keep: some browsers ask their user. */
  #askToPersist(): void {
    if (!this.outbox || this.#hasAskedToPersist) return
    this.#hasAskedToPersist = true
    void this.#environment.persistStorage?.().catch(() => false)
  }

  #refresh(documentId: string): boolean {
    const before = this.#statuses.get(documentId)
    this.#statuses.delete(documentId)
    const after = this.saveStatus(documentId)
    if (after.state === "saved") this.#keepHeads(documentId)
    if (!sameStatus(before, after)) return true
    this.#statuses.set(documentId, before!)
    return false
  }

  /** Writes down a little later up to where a document is durable: then it is saved also when it is next opened offline. */
  #keepHeads(documentId: string): void {
    if (!this.outbox) return
    this.#headsToKeep.add(documentId)
    this.#headsTimer ??= this.#environment.setTimeout(() => this.keepHeadsNow(), DURABLE_HEADS_MS)
  }

  /** Writes the heads of saved documents without waiting. */
  keepHeadsNow(): void {
    if (this.#headsTimer !== undefined) this.#environment.clearTimeout(this.#headsTimer)
    this.#headsTimer = undefined
    for (const id of this.#headsToKeep) {
      const document = this.#documents.get(id)
      if (document?.isSaved && document.heads.length > 0) this.outbox?.setDurableHeads(id, document.heads)
    }
    this.#headsToKeep.clear()
  }
}

function isCovered(document: TrackedDocument, hashes: readonly string[]): boolean {
  return document.isSaved || (document.isVerified && !hashes.some(hash => document.pending.has(hash)))
}
