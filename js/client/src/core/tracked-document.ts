import * as A from "@automerge/automerge/slim"
import { changesSince, hasChange, hashesOf, isPart, splitChunks, type Change } from "./changes.js"
import { DELETED, type RejectedChange, type UnsavedDocument } from "./errors.js"
import { Ledger, type OwedChange, type PendingChange } from "./ledger.js"
import type { StatusFacts } from "./save-status.js"

/** What a document tells about itself. */
export interface TrackedDocumentEvents {
  /** These changes are owed to the server now. */
  onPending(documentId: string, changes: readonly PendingChange[]): void
  /** These are not any more. */
  onSettled(documentId: string, changes: readonly PendingChange[]): void
  /** The application's copy lacks changes that are here. */
  onLacking(documentId: string): void
  /** Whether documents may come from storage on this device. */
  readonly hasStorage: boolean
}

/**
 * Compares a document with what the server has called durable.
 *
 * The document is all that this client ever had of it. Changes are in one of three states: durable, pending (in
 * the ledger), or, while the document is not verified, one of the two, and nobody knows which.
 */
export class TrackedDocument {
  readonly documentId: string
  /** It was deleted here: nothing of it will be sent any more. */
  isDeleted = false
  /** It was deleted on the server: nothing of it is there any more, nor ever will be. */
  #isGone = false
  readonly #ledger = new Ledger()
  readonly #events: TrackedDocumentEvents
  readonly #now: () => number
  #doc: A.Doc<unknown> | undefined
  #seen: readonly string[] = []
  /** False while the document has contents of which nobody knows yet whether the server has them. */
  #verified = true
  /** Whether all that is not pending had been called durable, and is only to be confirmed by the same server. */
  #wasVerified = false
  /** The server's heads, once it has spoken about this document on this connection. */
  #serverHeads: readonly string[] | undefined
  /** Heads that were durable in an earlier session, on the same server. */
  #durableBefore: readonly string[] = []
  /** Whether there was a connection since, on which that must be confirmed. */
  #isDoubted = false

  constructor(documentId: string, events: TrackedDocumentEvents, now: () => number) {
    this.documentId = documentId
    this.#events = events
    this.#now = now
  }

  /** What the outbox knows from an earlier session. */
  remember(durableHeads: readonly string[], owed: readonly OwedChange[]): void {
    if (durableHeads.length > 0) this.#durableBefore = durableHeads
    // Also if the document does not have them: then this device's copy of it is older than the outbox.
    this.#ledger.restore(owed)
    // If the server has spoken already, its heads say what of this is still owed.
    if (this.#serverHeads && owed.length > 0) this.#unverify()
    this.#verify()
  }

  /** The application's copy is this one now. `isImported`: it may be on no device and no server yet. */
  update(doc: A.Doc<unknown>, isImported = false): void {
    const heads = A.getHeads(doc)
    // An unloaded handle shows an empty document. That does not undo what is owed.
    if (heads.length === 0) return
    if (sameHeads(heads, this.#seen)) this.#doc = doc
    else if (!this.#doc) this.#begin(doc, isImported)
    else if (this.#seen.every(hash => hasChange(doc, hash))) this.#become(doc, changesSince(doc, this.#seen))
    else if (this.#isBlank) this.#replaceBlank(doc)
    else this.#merge(this.#doc, doc)
    this.#verify()
  }

  /** What this client has and this copy of the document lacks, in causal order. */
  lackedBy(doc: A.Doc<unknown>): Change[] {
    const shared = this.#seen.filter(hash => hasChange(doc, hash))
    const here = this.#doc ? changesSince(this.#doc, shared) : []
    return [...here, ...this.missingHere].filter(({ hash }) => !hasChange(doc, hash))
  }

  /** A sync message from the server had these heads and changes: they and all their ancestors are durable. */
  serverHas(heads: readonly string[], changes: readonly Uint8Array[] = []): void {
    this.#serverHeads = heads
    if (heads.length === 0) this.#verified = this.#seen.length === 0
    this.markDurable(heads)
    this.#markPart(heads, changes)
    this.#verify()
  }

  /** What the server sends in parts has no heads that are known here before the last of them. */
  #markPart(heads: readonly string[], changes: readonly Uint8Array[]): void {
    const unknown = heads.filter(hash => !this.#isHere(hash))
    if (unknown.length === 0) return
    try {
      const chunks = changes.flatMap(splitChunks)
      if (isPart(chunks, unknown)) this.markDurable(hashesOf(chunks, this.#doc ?? A.init()))
    } catch (error) {
      console.warn(`highwater: could not read what the server has sent of ${this.documentId}:`, error)
    }
  }

  /** The server called these changes durable, in whatever way. */
  markDurable(hashes: readonly string[]): void {
    this.#settled(this.#ledger.markDurable(hashes, this.#isHere))
    if (this.#seen.length > 0 && this.#seen.every(hash => hashes.includes(hash))) this.#owesOnly([])
  }

  /** The server lacks these. If it had one of them, it has lost something, and nobody knows yet how much. */
  markMissing(hashes: readonly string[]): void {
    const owed = new Set(this.unsaved.hashes)
    if (hashes.some(hash => this.#isHere(hash) && !owed.has(hash))) this.#mistrust()
  }

  /** What was called durable before does not count any more. */
  #mistrust(): void {
    this.#wasVerified = false
    this.#durableBefore = []
  }

  /** The server will never take these changes. */
  reject(changes: readonly RejectedChange[]): void {
    this.#ledger.reject(changes)
  }

  /** The document was deleted on the server. */
  markGone(): void {
    if (this.#isGone) return
    this.doubt(true)
    this.#isGone = true
  }

  /**
   * It is another connection now, to another server or to one that may have lost something: what was durable must
   * be confirmed again.
   */
  doubt(isOtherServer: boolean): void {
    this.#isGone = false
    this.#ledger.doubt(isOtherServer)
    this.#serverHeads = undefined
    this.#isDoubted = true
    this.#unverify()
    if (isOtherServer) this.#mistrust()
    this.#keepAgain()
  }

  #unverify(): void {
    this.#wasVerified ||= this.#verified
    this.#verified = this.#seen.length === 0
  }

  /** Another tab may have taken out of the outbox what a server had that has lost it since. */
  #keepAgain(): void {
    const kept = [...this.#ledger.pending.values()].filter(({ stored }) => stored)
    for (const change of kept) change.stored = false
    this.#pending(kept)
  }

  /** What to ask the server about: its heads alone do not tell whether it has these. */
  get undecided(): string[] {
    return this.#verified && !this.#ledger.isBehind ? [] : this.#toAsk(this.hopeful)
  }

  /** What the server has neither called durable nor refused by name. */
  get unanswered(): string[] {
    return this.#toAsk([...this.stuck, ...this.hopeful])
  }

  /** These changes, and the document's heads if nobody knows whether the server has them. The last matter most. */
  #toAsk(changes: readonly PendingChange[]): string[] {
    const heads = this.#verified || this.#isGone ? [] : this.#seen
    return [...new Set([...changes.map(({ hash }) => hash), ...heads])]
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
    return this.#isGone ? [] : this.#ledger.hopeful().map(hash => this.#ledger.pending.get(hash)!)
  }

  /** The pending changes that the server has refused, and those that build on them, in causal order. */
  get hopeless(): PendingChange[] {
    const hopeful = new Set(this.hopeful)
    return [...this.#ledger.pending.values()].filter(change => !hopeful.has(change))
  }

  /** The pending changes that build on what the server has refused, and of which it has not said anything itself, in causal order. */
  get stuck(): PendingChange[] {
    if (this.#isGone) return []
    const refused = new Set(this.#ledger.rejected.map(({ hash }) => hash))
    return this.hopeless.filter(({ hash }) => !refused.has(hash))
  }

  /** Pending changes that the document itself does not have, in causal order. */
  get missingHere(): PendingChange[] {
    return [...this.#ledger.pending.values()].filter(({ hash }) => !this.#isHere(hash))
  }

  /** The document as it is now, by its newest hashes: when none of them is pending, all below them is durable. */
  get tips(): string[] {
    return [...new Set([...this.#seen, ...this.#ledger.heads])]
  }

  /** Whether all below these hashes is durable. */
  covers(hashes: readonly string[]): boolean {
    return this.#verified && !hashes.some(hash => this.#ledger.pending.has(hash))
  }

  /** For the status. */
  get facts(): StatusFacts {
    return {
      unsavedChanges: this.#events.hasStorage ? this.#ledger.pending.size : this.unsaved.hashes.length,
      unsavedSince: this.#ledger.oldest,
      isSaved: this.isSaved,
      isRejected: this.#ledger.rejected.length > 0 || (this.#isGone && !this.isSaved),
      isStored: this.#isStored,
    }
  }

  /** Whether all that the server may lack is on this device: the contents in storage, what is pending in the outbox. */
  get #isStored(): boolean {
    const { pending } = this.#ledger
    if (![...pending.values()].every(({ stored }) => stored)) return false
    if (this.#verified || this.#events.hasStorage) return true
    return pending.size > 0 && this.#unknown.every(hash => pending.has(hash))
  }

  /** Whether every change of these, and below them, that is not durable never will be. */
  isHopeless(hashes: readonly string[]): boolean {
    return this.isDeleted || this.#isGone || (this.#verified && this.#ledger.isHopeless(hashes))
  }

  /** For the error of somebody who waited in vain. */
  get unsaved(): UnsavedDocument {
    const hashes = [...new Set([...this.#unknown, ...this.#ledger.pending.keys()])]
    const rejected = this.#isGone ? hashes.map(hash => ({ hash, reason: DELETED })) : this.#ledger.rejected
    return { documentId: this.documentId, hashes, rejected }
  }

  /** While the document is not verified: all of it that the server is not known to have, in causal order. */
  get #unknown(): string[] {
    if (this.#verified || this.#wasVerified || !this.#doc) return []
    const durable = [...(this.#serverHeads ?? []), ...this.#durableBefore].filter(this.#isHere)
    return A.getChangesMetaSince(this.#doc, durable).map(({ hash }) => hash)
  }

  /** The first contents. */
  #begin(doc: A.Doc<unknown>, isImported: boolean): void {
    // What comes neither from storage nor from the server is nowhere else.
    this.#verified = wasMadeHere(doc) || isImported || (!this.#events.hasStorage && !this.#serverHeads)
    this.#wasVerified = false
    this.#become(doc, this.#verified ? changesSince(doc, []) : [])
  }

  /** The document is this one, and these changes of it are new. */
  #become(doc: A.Doc<unknown>, news: readonly Change[]): void {
    this.#doc = doc
    this.#seen = A.getHeads(doc)
    if (this.#seen.every(hash => this.#ledger.isAhead(hash))) return this.#owesOnly([])
    const added = this.#ledger.add(news, this.#now())
    // What came in together with its acknowledgement is not written to the outbox only to be removed.
    this.#settled(this.#ledger.catchUp(this.#isHere))
    this.#pending(added)
  }

  /** A copy that was read from storage may lack what storage had no time for. That is not lost: it is here. */
  #merge(before: A.Doc<unknown>, doc: A.Doc<unknown>): void {
    const shared = this.#seen.filter(hash => hasChange(doc, hash))
    const news = changesSince(doc, shared).filter(({ hash }) => !hasChange(before, hash))
    const [merged] = A.applyChanges(A.clone(before), news.map(({ bytes }) => bytes))
    this.#become(merged, news)
    this.#events.onLacking(this.documentId)
  }

  /** Whether there is nothing but the empty change that automerge-repo begins a document with. */
  get #isBlank(): boolean {
    const only = this.#seen.length === 1 && this.pending.size === 1 ? this.pending.get(this.#seen[0]!) : undefined
    return only !== undefined && only.deps.length === 0 && A.decodeChange(only.bytes).ops.length === 0
  }

  /** `import` and `clone` put a document in the place of that one, which nobody misses. */
  #replaceBlank(doc: A.Doc<unknown>): void {
    this.#settled([...this.pending.values()])
    this.#ledger.replace([], this.#now())
    this.#become(doc, changesSince(doc, []))
  }

  /** Looks whether enough is known now. */
  #verify(): void {
    if (this.#verified || !this.#doc) return
    if (this.#serverHeads) {
      if (this.#serverHeads.every(this.#isHere)) this.#owesOnly(changesSince(this.#doc, this.#serverHeads))
    } else if (!this.#isDoubted && this.#durableBefore.some(this.#isHere)) {
      // Before the server has spoken, what an earlier session was told counts.
      this.#verified = this.#unknown.every(hash => this.pending.has(hash))
    }
  }

  /** Exactly these changes of the document are owed, and those that it does not have. */
  #owesOnly(changes: readonly Change[]): void {
    const before = new Set(this.#ledger.pending.keys())
    this.#settled(this.#ledger.replace([...changes, ...this.missingHere], this.#now()))
    this.#settled(this.#ledger.catchUp(this.#isHere))
    this.#verified = true
    this.#pending([...this.#ledger.pending.values()].filter(({ hash }) => !before.has(hash)))
  }

  #pending(added: readonly PendingChange[]): void {
    const owed = added.filter(({ hash }) => this.#ledger.pending.has(hash))
    if (owed.length > 0) this.#events.onPending(this.documentId, owed)
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
