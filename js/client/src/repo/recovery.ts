import type { Environment } from "../core/environment.js"
import type { Outbox } from "../core/outbox.js"
import type { SaveTracker } from "../core/save-tracker.js"
import { Tabs } from "../core/tabs.js"
import type { Delivery } from "./delivery.js"

/** What a recovery works with. */
export interface RecoveryParts {
  readonly tracker: SaveTracker
  readonly outbox: Outbox
  readonly delivery: Delivery
  readonly environment: Environment
  /** The outbox's name; tabs with the same one share it. */
  readonly name: string
  /** Names this tab among others. */
  readonly self: string
}

/** Brings to the server what earlier sessions and tabs that are gone have left in the outbox. */
export class Recovery {
  readonly #parts: RecoveryParts
  readonly #tabs: Tabs
  readonly #ended = new AbortController()

  constructor(parts: RecoveryParts) {
    this.#parts = parts
    this.#tabs = new Tabs(parts.name, parts.self, parts.environment, () => void this.#adopt())
  }

  /** Finds out what was left behind, and whether this tab is the one to send it. */
  async start(): Promise<void> {
    const { tracker, outbox } = this.#parts
    // The owner is ready when it knows what was left behind. What it delivers is not another tab's to wait for.
    if (await this.#tabs.start()) return
    const contents = await outbox.load(this.#ended.signal)
    if (!contents) return
    tracker.remember(contents, [])
    tracker.isReady = true
    tracker.changed()
  }

  /** Lets another tab take over. */
  end(): void {
    this.#ended.abort()
    this.#tabs.end()
  }

  async #adopt(): Promise<void> {
    const { tracker, outbox, delivery } = this.#parts
    const contents = await outbox.load(this.#ended.signal)
    if (!contents) return
    const isLiving = await this.#tabs.areLiving()
    if (this.#ended.signal.aborted) return
    const left = contents.changes.filter(({ documentId, hash, writer }) => !isLiving(writer) && !tracker.owes(documentId, hash))
    tracker.remember(contents, left)
    tracker.isReady = true
    tracker.changed()
    for (const id of new Set(left.map(({ documentId }) => documentId))) void delivery.deliver(id)
  }
}
