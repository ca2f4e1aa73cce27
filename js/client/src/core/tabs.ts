import type { Environment, LocksLike } from "./environment.js"

const LOOK_MS = 5000
// A tab that came and went between two looks was never seen. So now and then the outbox is looked at in any case.
const LOOKS_UNTIL_ANYWAY = 12

/**
 * The tabs of one origin that share an outbox. Each holds a lock for as long as it lives, and one of them holds
 * the owner's: it sends what tabs have left that are gone. The browser frees the locks of a tab that dies.
 */
export class Tabs {
  readonly #name: string
  readonly #self: string
  readonly #environment: Environment
  readonly #onLeftBehind: () => void
  readonly #ended = new AbortController()
  /** None where the platform has none, or lets nobody use them, as in a frame without an origin. */
  #locks: LocksLike | undefined
  #release: () => void = () => {}
  #timer: unknown
  /** The locks that were held when it was last looked. */
  #others: ReadonlySet<string> = new Set()
  #looks = 0
  #isOwner = false

  /** `onLeftBehind` is called when this tab is the owner, and whenever another tab has gone since. */
  constructor(name: string, self: string, environment: Environment, onLeftBehind: () => void) {
    this.#name = name
    this.#self = self
    this.#environment = environment
    this.#locks = environment.locks
    this.#onLeftBehind = onLeftBehind
  }

  /** Takes this tab's lock, and the owner's as soon as it is free. Resolves with whether this tab is the owner. */
  async start(): Promise<boolean> {
    if (this.#locks) this.#take(this.#locks)
    try {
      // Locks are handed out and asked about in order: a free one was handed over before this is answered.
      this.#others = await this.#living()
    } catch {
      this.#locks = undefined
    }
    if (!this.#locks) this.#own()
    return this.#isOwner
  }

  #take(locks: LocksLike): void {
    const held = new Promise<void>(resolve => (this.#release = resolve))
    void this.#hold(locks, this.#tabLock(this.#self), () => held)
    void this.#hold(locks, `${this.#name} owner`, async () => {
      this.#own()
      this.#others = await this.#livingAsKnown()
      this.#lookLater()
      await held
    })
  }

  #own(): void {
    if (this.#isOwner || this.#ended.signal.aborted) return
    this.#isOwner = true
    this.#onLeftBehind()
  }

  /** Gives the locks back. */
  end(): void {
    this.#ended.abort()
    this.#release()
    if (this.#timer !== undefined) this.#environment.clearTimeout(this.#timer)
  }

  /** Whether the tab with this name is there. Without locks, no tab but this one is known. */
  async areLiving(): Promise<(tab: string) => boolean> {
    const living = await this.#livingAsKnown()
    return tab => tab === this.#self || living.has(this.#tabLock(tab))
  }

  async #hold(locks: LocksLike, name: string, held: () => Promise<void>): Promise<void> {
    try {
      await locks.request(name, { signal: this.#ended.signal }, held)
    } catch (error) {
      if (this.#ended.signal.aborted) return
      console.warn("highwater: could not take a lock, will not wait for other tabs:", error)
      this.#own()
    }
  }

  async #living(): Promise<ReadonlySet<string>> {
    const held = (await this.#locks?.query())?.held ?? []
    return new Set(held.map(({ name = "" }) => name))
  }

  /** A question that fails says nothing of who is there. */
  #livingAsKnown(): Promise<ReadonlySet<string>> {
    return this.#living().catch(() => this.#others)
  }

  #lookLater(): void {
    if (this.#ended.signal.aborted) return
    this.#timer = this.#environment.setTimeout(() => void this.#look(), LOOK_MS)
  }

  async #look(): Promise<void> {
    const living = await this.#livingAsKnown()
    const hasLost = [...this.#others].some(tab => !living.has(tab))
    this.#others = living
    this.#looks += 1
    const isDue = hasLost || this.#looks % LOOKS_UNTIL_ANYWAY === 0
    if (isDue && !this.#ended.signal.aborted) this.#onLeftBehind()
    this.#lookLater()
  }

  #tabLock(tab: string): string {
    return `${this.#name} tab ${tab}`
  }
}
