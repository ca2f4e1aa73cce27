import type { SaveStatus, SaveStatusSource } from "../core/save-status.js"

/** Good news waits for so long, so that a chip does not flicker while somebody types. */
export const STEADY_MS = 700

/**
 * A status that does not flicker: it turns to `saved` only once that has lasted, and to anything else at once.
 * So it never says that something is saved when it is not.
 */
export class SteadyStatus {
  readonly #source: SaveStatusSource
  readonly #documentId: string | undefined
  #shown: SaveStatus
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(source: SaveStatusSource, documentId: string | undefined) {
    this.#source = source
    this.#documentId = documentId
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
        this.#timer ??= setTimeout(() => show(now), STEADY_MS)
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
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
