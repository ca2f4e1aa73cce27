/** How long to wait between attempts to connect. */
export interface BackoffOptions {
  /** The first pause is at most this long, in milliseconds. Default 500. */
  min?: number
  /** No pause is longer than this, in milliseconds. Default 30,000. */
  max?: number
}

/**
 * Exponential backoff with full jitter: each pause is anywhere between nothing and a limit that doubles.
 * The jitter keeps clients that lost the same server from coming back in one wave.
 */
export class Backoff {
  readonly #min: number
  readonly #max: number
  readonly #random: () => number
  #failures = 0

  constructor({ min = 500, max = 30_000 }: BackoffOptions, random: () => number) {
    this.#min = min
    this.#max = max
    this.#random = random
  }

  /** The next pause in milliseconds. */
  next(): number {
    const limit = Math.min(this.#max, this.#min * 2 ** this.#failures)
    if (limit < this.#max) this.#failures += 1
    return this.#random() * limit
  }

  /** The connection works again: the next pause is a short one. */
  reset(): void {
    this.#failures = 0
  }
}
