import { inCausalOrder, type Change } from "./changes.js"
import type { RejectedChange } from "./errors.js"

/** A change that the server has not called durable, as the outbox keeps it. */
export interface OwedChange extends Change {
  /** When it was made or found, in milliseconds since 1970. */
  readonly since: number
}

/** A change that the server has not called durable. */
export interface PendingChange extends OwedChange {
  /** Whether it is in durable storage on this device. */
  stored: boolean
}

/** How many refusals are kept of changes that are not known yet. */
const UNKNOWN_MAX = 1000

/**
 * What one document owes the server, by change hash.
 *
 * Everything here rests on one fact: what the server calls durable is durable with all its ancestors. So the
 * changes that are not durable are closed upwards, and those that a durable hash settles are found by walking
 * down from it through pending changes only.
 */
export class Ledger {
  /** In causal order, as a Map keeps the order in which changes were added. */
  readonly #pending = new Map<string, PendingChange>()
  readonly #rejected = new Map<string, string>()
  /** Durable hashes that are not in the document yet. What they stand on is not known until they are. */
  readonly #ahead = new Set<string>()

  /** The changes that are not durable, in causal order. */
  get pending(): ReadonlyMap<string, PendingChange> {
    return this.#pending
  }

  /** Whether the server has named durable changes that are not here yet. */
  get isBehind(): boolean {
    return this.#ahead.size > 0
  }

  /** Takes changes that were made here or came from elsewhere. Returns those that were not pending before. */
  add(changes: readonly Change[], now: number): PendingChange[] {
    const added: PendingChange[] = []
    for (const change of changes) {
      if (this.#pending.has(change.hash)) continue
      const pending = { ...change, since: now, stored: false }
      this.#pending.set(change.hash, pending)
      added.push(pending)
    }
    return added
  }

  /** Takes what the outbox kept from an earlier session, and perhaps several tabs have written. */
  restore(changes: readonly OwedChange[]): void {
    for (const change of inCausalOrder(changes)) {
      if (!this.#pending.has(change.hash)) this.#pending.set(change.hash, { ...change, stored: true })
    }
  }

  /** Whether the server has named this change durable before it was here. */
  isAhead(hash: string): boolean {
    return this.#ahead.has(hash)
  }

  /** The server has these changes and all their ancestors. `isHere` tells which of them the document has. */
  markDurable(hashes: readonly string[], isHere: (hash: string) => boolean): PendingChange[] {
    const settled: PendingChange[] = []
    for (const hash of hashes) {
      this.#rejected.delete(hash)
      settled.push(...this.#settle(hash))
      // Remembered also if it was pending, from the outbox: it must not be owed again when it arrives.
      if (!isHere(hash)) this.#ahead.add(hash)
    }
    return settled
  }

  /** Looks again which of the named changes have arrived. */
  catchUp(isHere: (hash: string) => boolean): PendingChange[] {
    const arrived = [...this.#ahead].filter(isHere)
    for (const hash of arrived) this.#ahead.delete(hash)
    return arrived.flatMap(hash => this.#settle(hash))
  }

  /** Exactly these changes are not durable. Those that were pending before keep their age. Returns those that are settled. */
  replace(changes: readonly Change[], now: number): PendingChange[] {
    const before = new Map(this.#pending)
    this.#pending.clear()
    for (const change of changes) {
      this.#pending.set(change.hash, before.get(change.hash) ?? { ...change, since: now, stored: false })
    }
    for (const hash of this.#rejected.keys()) if (!this.#pending.has(hash)) this.#rejected.delete(hash)
    return [...before.values()].filter(({ hash }) => !this.#pending.has(hash))
  }

  /** Forgets what the server has, as it may have lost it. What it refused, another server may take. */
  doubt(isOtherServer: boolean): void {
    this.#ahead.clear()
    if (isOtherServer) this.#rejected.clear()
  }

  /** The server will never take these changes. It may say so before it is known that they are owed. */
  reject(changes: readonly RejectedChange[]): void {
    for (const { hash, reason } of changes) this.#rejected.set(hash, reason)
    const unknown = [...this.#rejected.keys()].filter(hash => !this.#pending.has(hash))
    for (const hash of unknown.slice(0, -UNKNOWN_MAX)) this.#rejected.delete(hash)
  }

  /** The pending changes that the server refused. */
  get rejected(): RejectedChange[] {
    const rejected = [...this.#rejected].map(([hash, reason]) => ({ hash, reason }))
    return rejected.filter(({ hash }) => this.#pending.has(hash))
  }

  /** The pending changes that no other one builds on. */
  get heads(): string[] {
    const below = new Set([...this.#pending.values()].flatMap(({ deps }) => deps))
    return [...this.#pending.keys()].filter(hash => !below.has(hash))
  }

  /** The pending changes that can still become durable: neither refused nor built on what was. */
  hopeful(): string[] {
    const lost = new Set<string>()
    for (const { hash, deps } of this.#pending.values()) {
      if (this.#rejected.has(hash) || deps.some(dep => lost.has(dep))) lost.add(hash)
    }
    return [...this.#pending.keys()].filter(hash => !lost.has(hash))
  }

  /** Whether none of the pending changes among these and below them can still become durable. */
  isHopeless(hashes: readonly string[]): boolean {
    // Asked after each change by everybody who waits: most of the time there is nothing to look for.
    if (this.#rejected.size === 0) return !hashes.some(hash => this.#pending.has(hash))
    const hopeful = new Set(this.hopeful())
    return !this.#downFrom(hashes).some(({ hash }) => hopeful.has(hash))
  }

  /** When the oldest pending change was made. */
  get oldest(): number | undefined {
    let oldest: number | undefined
    for (const { since } of this.#pending.values()) oldest = oldest === undefined ? since : Math.min(oldest, since)
    return oldest
  }

  #settle(durable: string): PendingChange[] {
    const settled = this.#downFrom([durable])
    for (const { hash } of settled) {
      this.#pending.delete(hash)
      this.#rejected.delete(hash)
    }
    return settled
  }

  /** The pending changes among these, and those that they build on. */
  #downFrom(hashes: readonly string[]): PendingChange[] {
    const found = new Set<PendingChange>()
    const stack = [...hashes]
    for (let hash = stack.pop(); hash !== undefined; hash = stack.pop()) {
      const change = this.#pending.get(hash)
      if (!change || found.has(change)) continue
      found.add(change)
      stack.push(...change.deps)
    }
    return [...found]
  }
}
