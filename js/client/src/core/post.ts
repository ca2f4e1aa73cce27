import type { Environment } from "./environment.js"
import { changesUrl, postChanges } from "./http.js"
import type { PendingChange } from "./ledger.js"
import type { SaveTracker } from "./save-tracker.js"

/** How long the server may go on lacking a change on a connection before it is posted. */
const MISSED_MS = 5000
/** What is posted at once of such changes. */
const MISSED_BYTES_MAX = 1024 * 1024

/** Posts changes, beside the connection, and notes what the server says of them. */
export class Post {
  readonly #webSocketUrl: string
  readonly #tracker: SaveTracker
  readonly #environment: Environment
  readonly #token: () => string | undefined
  /** By document: the oldest change that the server was last found to lack, and since when. */
  readonly #missed = new Map<string, { hash: string; since: number }>()

  constructor(webSocketUrl: string, tracker: SaveTracker, environment: Environment, token: () => string | undefined) {
    this.#webSocketUrl = webSocketUrl
    this.#tracker = tracker
    this.#environment = environment
    this.#token = token
  }

  /** Whether this platform can post. */
  get isPossible(): boolean {
    return this.#environment.fetch !== undefined
  }

  /** Posts changes, which are in causal order. With `keepalive` the browser goes on with it when the page is gone. */
  async send(documentId: string, changes: readonly PendingChange[], keepalive = false): Promise<void> {
    const { fetch } = this.#environment
    if (!fetch || changes.length === 0) return
    const url = changesUrl(this.#webSocketUrl, documentId, this.#token())
    const answer = await postChanges(fetch, url, changes, keepalive)
    if (!answer) return
    this.#tracker.markDurable(documentId, answer.durable)
    this.#tracker.reject(documentId, answer.rejected)
  }

  /**
   * The server was asked, and lacks these. What it goes on lacking is posted: the sync protocol takes it for sent,
   * or for something that the server has, as when a Bloom filter mistakes it for that. An upload that goes on is left alone.
   */
  missed(documentId: string, missing: readonly string[]): void {
    const { hopeful } = this.#tracker.document(documentId)
    const lacked = new Set(missing)
    const oldest = hopeful.find(({ hash }) => lacked.has(hash))
    if (hopeful.length === 0) this.#missed.delete(documentId)
    if (!oldest) return
    const now = this.#environment.now()
    const before = this.#missed.get(documentId)
    if (before?.hash === oldest.hash && now - before.since < MISSED_MS) return
    this.#missed.set(documentId, { hash: oldest.hash, since: now })
    if (before?.hash === oldest.hash) void this.send(documentId, fitting(hopeful, MISSED_BYTES_MAX))
  }
}

/** A beginning of these changes that has no more bytes than this, so that none goes without what it builds on. */
export function fitting(changes: Iterable<PendingChange>, bytesMax: number): PendingChange[] {
  const taken: PendingChange[] = []
  let room = bytesMax
  for (const change of changes) {
    room -= change.bytes.length
    if (room < 0) break
    taken.push(change)
  }
  return taken
}
