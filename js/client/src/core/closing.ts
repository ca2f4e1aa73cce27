import type { Environment } from "./environment.js"
import type { Outbox } from "./outbox.js"
import type { SaveTracker } from "./save-tracker.js"
import type { WaitOptions } from "./waiters.js"

/** What is to be closed. */
export interface Closing {
  readonly environment: Environment
  readonly tracker: SaveTracker
  readonly outbox: Outbox | undefined
  /** Resolves when everything is saved. */
  flush(options: WaitOptions): Promise<void>
  /** Ends the connection. */
  end(): void
}

const CLOSE_MS = 10_000

/**
 * Ends the connection as soon as nothing is unsaved, also of what is typed while this waits. `timeout` is for all
 * of it together. When the promise resolves there was no turn since in which anybody could type.
 */
export async function closeWhenSaved(closing: Closing, { timeout = CLOSE_MS, signal }: WaitOptions): Promise<void> {
  const { environment, tracker, outbox } = closing
  const deadline = environment.now() + timeout
  const left = () => Math.max(0, deadline - environment.now())
  do {
    await closing.flush({ timeout: left(), signal })
    tracker.keepHeadsNow()
    if (outbox) await atMost(environment, left(), outbox.settled())
  } while (tracker.unsaved().length > 0)
  closing.end()
}

async function atMost(environment: Environment, ms: number, work: Promise<void>): Promise<void> {
  let timer: unknown
  const late = new Promise<void>(resolve => (timer = environment.setTimeout(resolve, ms)))
  await Promise.race([work, late])
  environment.clearTimeout(timer)
}

/** The cause of what ends for those who wait when the application disconnects. */
export function disconnected(): Error {
  return new Error("the application called disconnect() or close()")
}
