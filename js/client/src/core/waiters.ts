import type { Environment } from "./environment.js"
import type { UnsavedReason } from "./errors.js"

/** How long to wait. */
export interface WaitOptions {
  /** Give up after so many milliseconds. Without it, wait until the connection ends for good. */
  timeout?: number | undefined
  /** Give up when this is aborted; the promise then rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** What is waited for. */
export interface Wait extends WaitOptions {
  isDone(): boolean
  isHopeless(): boolean
  error(reason: UnsavedReason, cause?: unknown): Error
}

interface Waiter {
  look(): void
  fail(reason: UnsavedReason, cause?: unknown): void
}

/** Promises that settle when something has become true, cannot become true, or took too long. */
export class Waiters {
  readonly #environment: Environment
  readonly #all = new Set<Waiter>()
  #stopped: { cause: unknown } | undefined

  constructor(environment: Environment) {
    this.#environment = environment
  }

  wait(wait: Wait): Promise<void> {
    return new Promise((resolve, reject) => {
      const { timeout, signal } = wait
      let timer: unknown
      const end = (settle: () => void) => {
        this.#all.delete(waiter)
        if (timer !== undefined) this.#environment.clearTimeout(timer)
        signal?.removeEventListener("abort", abort)
        settle()
      }
      const abort = () => end(() => reject(signal!.reason))
      const waiter: Waiter = {
        look() {
          if (wait.isDone()) end(resolve)
          else if (wait.isHopeless()) end(() => reject(wait.error("rejected")))
        },
        fail: (reason, cause) => end(() => reject(wait.error(reason, cause))),
      }
      this.#all.add(waiter)
      waiter.look()
      if (!this.#all.has(waiter)) return
      if (signal?.aborted) return abort()
      if (this.#stopped) return waiter.fail("stopped", this.#stopped.cause)
      signal?.addEventListener("abort", abort)
      if (timeout !== undefined) timer = this.#environment.setTimeout(() => waiter.fail("timeout"), timeout)
    })
  }

  /** Something has changed. */
  look(): void {
    for (const waiter of [...this.#all]) waiter.look()
  }

  /** Nothing will change any more, until {@link restart}. */
  stop(cause: unknown): void {
    this.#stopped = { cause }
    for (const waiter of [...this.#all]) waiter.fail("stopped", cause)
  }

  /** Waiting makes sense again. */
  restart(): void {
    this.#stopped = undefined
  }
}
