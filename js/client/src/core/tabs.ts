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
  #release: () => void = () => {}
  #timer: unknown
  #others = new Set<string>()
  #looks = 0
  #isOwner = false

  /** `onLeftBehind` is called when this tab is the owner, and whenever another tab has gone since. */
  constructor(name: string, self: string, environment: Environment, onLeftBehind: () => void) {
    this.#name = name
    this.#self = self
    this.#environment = environment
    this.#onLeftBehind = onLeftBehind
  }

  /** Takes this tab's lock, and the owner's as soon as it is free. */
  start(): void {
    const { locks } = this.#environment
    if (!locks) {
      this.#isOwner = true
      return this.#onLeftBehind()
    }
    const held = new Promise<void>(resolve => (this.#release = resolve))
    void this.#hold(locks, this.#tabLock(this.#self), () => held)
    void this.#hold(locks, `${this.#name} owner`, async () => {
      this.#isOwner = true
      this.#others = await this.#living()
      this.#onLeftBehind()
      this.#lookLater()
      await held
    })
  }

  /** Gives the locks back. */
  end(): void {
    this.#ended.abort()
    this.#release()
    if (this.#timer !== undefined) this.#environment.clearTimeout(this.#timer)
  }

  /** Whether this tab is the owner, after the start. */
  async isOwner(): Promise<boolean> {
    // Locks are handed out and asked about in order: a free one was handed over before this is answered.
    await this.#living()
    return this.#isOwner
  }

  /** Whether the tab with this name is there. Without locks, no tab but this one is known. */
  async areLiving(): Promise<(tab: string) => boolean> {
    const living = await this.#living()
    return tab => tab === this.#self || living.has(this.#tabLock(tab))
  }

  async #hold(locks: LocksLike, name: string, held: () => Promise<void>): Promise<void> {
    try {
      await locks.request(name, { signal: this.#ended.signal }, held)
    } catch (error) {
      if (!this.#ended.signal.aborted) console.warn("highwater: could not take a lock:", error)
    }
  }

  async #living(): Promise<Set<string>> {
    const held = (await this.#environment.locks?.query())?.held ?? []
    return new Set(held.map(({ name = "" }) => name))
  }

  #lookLater(): void {
    if (this.#ended.signal.aborted) return
    this.#timer = this.#environment.setTimeout(() => void this.#look(), LOOK_MS)
  }

  async #look(): Promise<void> {
    const living = await this.#living()
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
