import type * as A from "@automerge/automerge/slim"
import type { Environment } from "./environment.js"
import { DELETED, UnsavedChangesError, type RejectedChange, type UnsavedDocument, type UnsavedReason } from "./errors.js"
import type { PendingChange } from "./ledger.js"
import { Listeners } from "./listeners.js"
import type { Outbox, OutboxChange, OutboxContents } from "./outbox.js"
import { overallStatus, sameStatus, statusOf, type SaveStatus, type SaveStatusSource, type StatusFacts } from "./save-status.js"
import { TrackedDocument } from "./tracked-document.js"
import { Waiters, type WaitOptions } from "./waiters.js"

const DURABLE_HEADS_MS = 1000
const NOTHING_UNSAVED: StatusFacts = {
  unsavedChanges: 0,
  unsavedSince: undefined,
  isSaved: true,
  isRejected: false,
  isStored: true,
}

/** A document of which these changes, and all below them, are waited for. */
interface Awaited {
  readonly document: TrackedDocument
  readonly hashes: readonly string[]
}

/** Knows of every document which of its changes the server has, and tells those who want to know. */
export class SaveTracker implements SaveStatusSource {
  readonly #environment: Environment
  readonly #documents = new Map<string, TrackedDocument>()
  readonly #statuses = new Map<string, SaveStatus>()
  #overall: SaveStatus | undefined
  #isOverallStale = true
  readonly #listeners = new Listeners()
  readonly #waiters: Waiters
  /** From earlier sessions, until the server can be asked: heads that it had called durable. */
  readonly #headsBefore = new Map<string, readonly string[]>()
  readonly #forgotten = new Set<string>()
  readonly #headsToKeep = new Set<string>()
  #headsTimer: unknown
  #hasAskedToPersist = false
  #isConnected = false
  /** The server that this client is connected to, or was last connected to. */
  #serverId: string | undefined
  #connections = 0
  /** Where pending changes are kept, if anywhere. */
  outbox: Outbox | undefined
  /** Called when a document owes the server something new. */
  onOwed: (documentId: string) => void = () => {}
  /** Called when the application's copy of a document lacks changes that are known here. */
  onLacking: (documentId: string) => void = () => {}
  /** Whether documents may come from storage on this device, so that they need not be kept in the outbox as well. */
  hasStorage = true
  /** False until what earlier sessions left is known. */
  isReady = true

  constructor(environment: Environment) {
    this.#environment = environment
    this.#waiters = new Waiters(environment)
  }

  /** How many connections there have been in this session. */
  get connections(): number {
    return this.#connections
  }

  get #hasMetServer(): boolean {
    return this.#connections > 0
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

  /**
   * A connection to this server begins. It may be another server than before, or one that was restored from a
   * backup: so of documents that it will speak of, only what is said on this connection counts from now on.
   */
  connected(serverId: string | undefined, willSpeakOf: (documentId: string) => boolean = () => true): void {
    const isOther = this.#serverId !== undefined && serverId !== this.#serverId
    if (serverId !== undefined && serverId !== this.#serverId) this.outbox?.setServerId(serverId)
    this.#serverId = serverId
    this.#connections += 1
    for (const document of this.#documents.values()) {
      if (isOther || willSpeakOf(document.documentId)) document.doubt(isOther)
    }
    if (isOther) this.#headsBefore.clear()
    this.changed()
  }

  /** What the outbox knows of earlier sessions, and which changes of it are to be sent from here. */
  remember({ durableHeads, serverId }: OutboxContents, owed: readonly OutboxChange[]): void {
    if (!this.#hasMetServer) this.#serverId ??= serverId
    for (const [id, { heads, serverId }] of durableHeads) if (serverId === this.#serverId) this.#headsBefore.set(id, heads)
    const byDocument = new Map<string, OutboxChange[]>()
    for (const change of owed) {
      const { documentId, hash } = change
      if (this.#forgotten.has(documentId)) {
        this.outbox?.remove(documentId, [hash])
        continue
      }
      if (!byDocument.has(documentId)) byDocument.set(documentId, [])
      byDocument.get(documentId)!.push(change)
    }
    // What owes something counts from now on, and not only once somebody opens it.
    for (const id of new Set([...this.#documents.keys(), ...byDocument.keys()])) {
      this.document(id).remember(this.#headsBefore.get(id) ?? [], byDocument.get(id) ?? [])
    }
    this.changed()
  }

  /** The document's record, made if there is none. */
  document(documentId: string): TrackedDocument {
    let document = this.#documents.get(documentId)
    if (!document) {
      document = new TrackedDocument(documentId, this, this.#environment.now)
      this.#documents.set(documentId, document)
      document.remember(this.#headsBefore.get(documentId) ?? [], [])
      if (this.#isConnected) document.doubt(false)
    }
    return document
  }

  /** Whether this change of the document is known to be owed. */
  owes(documentId: string, hash: string): boolean {
    return this.#documents.get(documentId)?.pending.has(hash) ?? false
  }

  /** All documents that are known. */
  get documents(): Iterable<TrackedDocument> {
    return this.#documents.values()
  }

  /** The document was deleted: nothing of it is owed to anybody. */
  forget(documentId: string): void {
    const document = this.#documents.get(documentId)
    this.#forgotten.add(documentId)
    this.#documents.delete(documentId)
    this.#headsBefore.delete(documentId)
    if (document) document.isDeleted = true
    this.outbox?.remove(documentId, document?.pending.keys() ?? [])
    this.outbox?.setDurableHeads(documentId, undefined)
    this.#statuses.delete(documentId)
    this.changed()
  }

  /** Whether the document was deleted, and nobody has made it again. */
  isForgotten(documentId: string): boolean {
    return this.#forgotten.has(documentId)
  }

  /** The document is this one now. `isImported`: it may be on no device and no server yet. */
  update(documentId: string, doc: A.Doc<unknown>, isImported = false): void {
    this.#forgotten.delete(documentId)
    this.document(documentId).update(doc, isImported)
    this.changed(documentId)
  }

  /** A sync message from the server had these heads and changes. */
  serverHas(documentId: string, { heads, changes }: A.DecodedSyncMessage): void {
    this.document(documentId).serverHas(heads, changes)
    this.changed(documentId)
  }

  /** The server called these changes durable, and lacks those. */
  markDurable(documentId: string, hashes: readonly string[], missing: readonly string[] = []): void {
    const document = this.#documents.get(documentId)
    document?.markDurable(hashes)
    document?.markMissing(missing)
    this.changed(documentId)
  }

  /** The server refused these changes for good. */
  reject(documentId: string, rejected: readonly RejectedChange[]): void {
    this.#documents.get(documentId)?.reject(rejected)
    if (rejected.some(({ reason }) => reason === DELETED)) this.markGone(documentId)
    this.changed(documentId)
  }

  /** The document was deleted on the server: what was known of it to be durable is so no more. */
  markGone(documentId: string): void {
    this.#documents.get(documentId)?.markGone()
    this.#headsBefore.delete(documentId)
    this.outbox?.setDurableHeads(documentId, undefined)
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
    const facts = this.#documents.get(documentId)?.facts ?? NOTHING_UNSAVED
    const status = this.#statusOf(facts)
    this.#statuses.set(documentId, status)
    return status
  }

  /** Nothing is saved for certain before it is known what earlier sessions left. */
  #statusOf(facts: StatusFacts): SaveStatus {
    return statusOf({ ...facts, isSaved: facts.isSaved && this.isReady }, this.#isConnected, this.#environment.now)
  }

  /** Counted only when asked for, as it takes all documents. */
  #overallStatus(): SaveStatus {
    if (this.#overall && !this.#isOverallStale) return this.#overall
    this.#isOverallStale = false
    const all = [...this.#documents.keys()].map(id => this.saveStatus(id))
    const status = overallStatus([this.#statusOf(NOTHING_UNSAVED), ...all], this.#environment.now)
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
    let waits: Awaited[] | undefined
    const start = () => documentIds.map(id => ({ document: this.document(id), hashes: this.document(id).tips }))
    const open = () => {
      if (this.isReady) waits ??= start()
      return (waits ?? start()).filter(({ document, hashes }) => !document.covers(hashes))
    }
    return this.#wait(open, options)
  }

  /** Resolves when no document has anything unsaved any more. Rejects as {@link whenSaved}. */
  whenAllSaved(options: WaitOptions = {}): Promise<void> {
    const unsaved = () => [...this.#documents.values()].filter(document => !document.isSaved)
    return this.#wait(() => unsaved().map(document => ({ document, hashes: document.tips })), options)
  }

  /** Resolves when nothing is open any more, and it is known that earlier sessions left nothing. */
  #wait(open: () => Awaited[], options: WaitOptions): Promise<void> {
    const error = (reason: UnsavedReason, cause?: unknown) => {
      const rest = open()
      const documents = rest.map(({ document }) => document.unsaved)
      if (documents.length === 0 && !this.isReady) return new UnsavedChangesError("outbox", [], this.outbox?.readError)
      const isDeleted = rest.some(({ document }) => document.isDeleted)
      return new UnsavedChangesError(isDeleted ? "deleted" : reason, documents, cause)
    }
    return this.#waiters.wait({
      isDone: () => this.isReady && open().length === 0,
      isHopeless: () =>
        (this.isReady || this.outbox?.readError !== undefined) &&
        open().every(({ document, hashes }) => document.isHopeless(hashes)),
      error,
      ...options,
    })
  }

  /** All that is not on the server. */
  unsaved(): UnsavedDocument[] {
    return [...this.#documents.values()].filter(document => !document.isSaved).map(document => document.unsaved)
  }

  /** Whether something is not on the server that could still get there. */
  get isHopeful(): boolean {
    return [...this.#documents.values()].some(document => !document.isSaved && !document.isHopeless(document.tips))
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
    // Of a server without a name nobody could tell later whether it is the same.
    if (!this.outbox || this.#serverId === undefined) return
    this.#headsToKeep.add(documentId)
    this.#headsTimer ??= this.#environment.setTimeout(() => this.keepHeadsNow(), DURABLE_HEADS_MS)
  }

  /** Writes the heads of saved documents without waiting. */
  keepHeadsNow(): void {
    if (this.#headsTimer !== undefined) this.#environment.clearTimeout(this.#headsTimer)
    this.#headsTimer = undefined
    const serverId = this.#serverId
    for (const id of this.#headsToKeep) {
      const { heads = [], isSaved } = this.#documents.get(id) ?? {}
      if (serverId !== undefined && isSaved && heads.length > 0) this.outbox?.setDurableHeads(id, { heads, serverId })
    }
    this.#headsToKeep.clear()
  }
}
