import * as A from "@automerge/automerge/slim"
import { changesSince, hasChange, type Change } from "./changes.js"
import type { RejectedChange, UnsavedDocument } from "./errors.js"
import { Ledger, type OwedChange, type PendingChange } from "./ledger.js"
import type { StatusFacts } from "./save-status.js"

/** What a document tells about itself. */
export interface TrackedDocumentEvents {
  /** These changes are owed to the server now. */
  onPending(documentId: string, changes: readonly PendingChange[]): void
  /** These are not any more. */
  onSettled(documentId: string, changes: readonly PendingChange[]): void
}

/** Compares a document with what the server has called durable. */
export class TrackedDocument {
  readonly documentId: string
  /** Nothing of it will be sent any more. */
  isDeleted = false
  readonly #ledger = new Ledger()
  readonly #events: TrackedDocumentEvents
  readonly #now: () => number
  #doc: A.Doc<unknown> | undefined
  #seen: readonly string[] = []
  /** False while the document has contents of which nobody knows yet whether the server has them. */
  #verified = true
  /** The server's heads, once it has spoken about this document. */
  #serverHeads: readonly string[] | undefined
  /** From an earlier session: heads that were durable then, and what was owed. */
  #durableBefore: readonly string[] = []
  readonly #owedBefore = new Set<string>()

  constructor(documentId: string, events: TrackedDocumentEvents, now: () => number) {
    this.documentId = documentId
    this.#events = events
    this.#now = now
  }

  /** What the outbox knows from an earlier session. To be told before the document itself. */
  remember(durableHeads: readonly string[], owed: readonly OwedChange[]): void {
    this.#durableBefore = durableHeads
    for (const { hash } of owed) this.#owedBefore.add(hash)
    // Also if the document does not have them: then this device's copy of it is older than the outbox.
    this.#ledger.restore(owed)
    if (!this.#doc) return
    // If the server has spoken already, its heads say what of this is still owed.
    if (this.#serverHeads) this.#verified = false
    else this.#recall(this.#doc)
    this.#verify()
  }

  /** The document is this one now. */
  update(doc: A.Doc<unknown>): void {
    const heads = A.getHeads(doc)
    // An unloaded handle shows an empty document. That does not undo what is owed.
    if (heads.length === 0 || sameHeads(heads, this.#seen)) return
    this.#doc = doc
    const isFirst = this.#seen.length === 0
    const isOther = this.#seen.some(hash => !hasChange(doc, hash))
    if (heads.every(hash => this.#ledger.isAhead(hash))) this.#replaceWith([])
    else if (isOther) this.#replaceWith(changesSince(doc, []), hash => this.#owedBefore.has(hash))
    else if (isFirst && !wasMadeHere(doc)) this.#recall(doc)
    else this.#add(changesSince(doc, this.#seen))
    this.#seen = heads
    this.#settled(this.#ledger.catchUp(this.#isHere))
    this.#verify()
  }

  /** A sync message from the server had these heads: they and all their ancestors are durable. */
  serverHas(heads: readonly string[]): void {
    this.#serverHeads = heads
    if (heads.length === 0) this.#verified = this.#seen.length === 0
    this.markDurable(heads)
    this.#verify()
  }

  /** The server called these changes durable, in whatever way. */
  markDurable(hashes: readonly string[]): void {
    this.#settled(this.#ledger.markDurable(hashes, this.#isHere))
    if (this.#seen.length > 0 && this.#seen.every(hash => hashes.includes(hash))) this.#replaceWith([])
  }

  /** The server will never take these changes. */
  reject(changes: readonly RejectedChange[]): void {
    this.#ledger.reject(changes)
  }

  /** It is another server now: what was durable must be confirmed again. */
  doubt(): void {
    this.#ledger.doubt()
    this.#serverHeads = undefined
    this.#durableBefore = []
    this.#verified = this.#seen.length === 0
  }

  /** What to ask the server about: its heads alone do not tell whether it has these. */
  get undecided(): string[] {
    if (!this.#ledger.isBehind) return []
    return [...(this.#verified ? [] : this.#seen), ...this.#ledger.hopeful()]
  }

  /** Whether the server has called all of the document durable. */
  get isSaved(): boolean {
    return this.#verified && this.#ledger.pending.size === 0
  }

  /** Whether it is known of all of the document's changes whether the server has them. */
  get isVerified(): boolean {
    return this.#verified
  }

  /** The document's heads. */
  get heads(): readonly string[] {
    return this.#seen
  }

  /** The changes that are not durable, in causal order. */
  get pending(): ReadonlyMap<string, PendingChange> {
    return this.#ledger.pending
  }

  /** The pending changes that the server may still take, in causal order. */
  get hopeful(): PendingChange[] {
    return this.#ledger.hopeful().map(hash => this.#ledger.pending.get(hash)!)
  }

  /** The pending changes that the server has refused, and those that build on them, in causal order. */
  get hopeless(): PendingChange[] {
    const hopeful = new Set(this.#ledger.hopeful())
    return [...this.#ledger.pending.values()].filter(({ hash }) => !hopeful.has(hash))
  }

  /** Pending changes that the document itself does not have, in causal order. */
  get missingHere(): PendingChange[] {
    return [...this.#ledger.pending.values()].filter(({ hash }) => !this.#isHere(hash))
  }

  /** For the status. */
  get facts(): StatusFacts {
    return {
      unsavedChanges: this.#ledger.pending.size,
      unsavedSince: this.#ledger.oldest,
      isSaved: this.isSaved,
      isRejected: this.#ledger.rejected.length > 0,
      isStored: [...this.#ledger.pending.values()].every(({ stored }) => stored),
    }
  }

  /** Whether every change of these that is not durable never will be. */
  isHopeless(hashes: Iterable<string>): boolean {
    return this.isDeleted || (this.#verified && this.#ledger.hopeful(hashes).length === 0)
  }

  /** For the error of somebody who waited in vain. */
  get unsaved(): UnsavedDocument {
    const pending = [...this.#ledger.pending.keys()]
    // Before the server has spoken there is no list; then the heads stand for all below them.
    const hashes = this.#verified ? pending : [...new Set([...pending, ...this.#seen])]
    return { documentId: this.documentId, hashes, rejected: this.#ledger.rejected }
  }

  /** Contents that were not made here: loaded from storage, imported, or from another peer. */
  #recall(doc: A.Doc<unknown>): void {
    const durable = new Set(this.#durableBefore)
    this.#verified = A.getHeads(doc).every(hash => durable.has(hash) || this.#ledger.pending.has(hash))
  }

  /** Once all of the server's heads are here, what is not below them is what is owed. */
  #verify(): void {
    if (this.#verified || !this.#doc || !this.#serverHeads || this.#ledger.isBehind) return
    this.#replaceWith(changesSince(this.#doc, this.#serverHeads))
  }

  #add(changes: readonly Change[]): void {
    const added = this.#ledger.add(changes, this.#now())
    // What came in together with its acknowledgement is not written to the outbox only to be removed.
    this.#settled(this.#ledger.catchUp(this.#isHere))
    const owed = added.filter(({ hash }) => this.#ledger.pending.has(hash))
    if (owed.length > 0) this.#events.onPending(this.documentId, owed)
  }

  /** Exactly these changes of the document are owed, and of those that it does not have, the ones to keep. */
  #replaceWith(changes: readonly Change[], isKept: (hash: string) => boolean = () => true): void {
    const before = new Set(this.#ledger.pending.keys())
    const elsewhere = [...this.#ledger.pending.values()].filter(({ hash }) => !this.#isHere(hash) && isKept(hash))
    this.#settled(this.#ledger.replace([...changes, ...elsewhere], this.#now()))
    this.#settled(this.#ledger.catchUp(this.#isHere))
    this.#verified = true
    const added = [...this.#ledger.pending.values()].filter(({ hash }) => !before.has(hash))
    if (added.length > 0) this.#events.onPending(this.documentId, added)
  }

  #settled(changes: readonly PendingChange[]): void {
    if (changes.length > 0) this.#events.onSettled(this.documentId, changes)
  }

  readonly #isHere = (hash: string): boolean => this.#doc !== undefined && hasChange(this.#doc, hash)
}

/** A document that was loaded has another actor than the one that would make its next change. */
function wasMadeHere(doc: A.Doc<unknown>): boolean {
  return A.getLastLocalChange(doc) !== undefined
}

function sameHeads(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every(hash => b.includes(hash))
}
