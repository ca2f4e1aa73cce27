import type { SaveStatus, SaveStatusSource, Timers } from "../core/save-status.js"

/** Good news waits for so long, so that a chip does not flicker while somebody types. */
export const STEADY_MS = 700

const PLATFORM: Timers = {
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: timer => clearTimeout(timer as any),
}

/**
 * A status that does not flicker: it turns to `saved` only once that has lasted, and to anything else at once.
 * So it never says that something is saved when it is not.
 */
export class SteadyStatus {
  readonly #source: SaveStatusSource
  readonly #documentId: string | undefined
  #shown: SaveStatus
  readonly #timers: Timers
  #timer: unknown

  constructor(source: SaveStatusSource, documentId: string | undefined) {
    this.#source = source
    this.#documentId = documentId
    this.#timers = source.timers ?? PLATFORM
    this.#shown = source.saveStatus(documentId)
  }

  /** The status to show. */
  get = (): SaveStatus => this.#shown

  /** Calls back when there is another status to show. Returns its own undo. */
  subscribe = (listener: () => void): (() => void) => {
    const look = () => {
      const now = this.#source.saveStatus(this.#documentId)
      if (now === this.#shown) return this.#cancel()
      if (now.state === "saved" && this.#shown.state !== "saved") {
        this.#timer ??= this.#timers.setTimeout(() => show(now), STEADY_MS)
      } else show(now)
    }
    const show = (status: SaveStatus) => {
      this.#cancel()
      this.#shown = status
      listener()
    }
    const unsubscribe = this.#source.onSaveStatus(look)
    look()
    return () => {
      this.#cancel()
      unsubscribe()
    }
  }

  #cancel(): void {
    if (this.#timer !== undefined) this.#timers.clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
