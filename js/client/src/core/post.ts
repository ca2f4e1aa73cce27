import type { Environment } from "./environment.js"
import { changesUrl, postInParts } from "./http.js"
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
  /** Documents of which changes are being posted, and since which connection. */
  readonly #underWay = new Map<string, number>()
  /** What was posted on a connection. */
  #posted = { connection: 0, changes: new Set<string>() }

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

  /** Posts changes, which are in causal order, unless some of the document's are on their way already: the path may be slow. */
  async send(documentId: string, changes: readonly PendingChange[]): Promise<void> {
    const { connections } = this.#tracker
    if (this.#underWay.get(documentId) === connections) return
    this.#underWay.set(documentId, connections)
    for (const { hash } of changes) this.#postedNow.add(`${documentId} ${hash}`)
    await this.#send(documentId, changes, false)
    if (this.#underWay.get(documentId) === connections) this.#underWay.delete(documentId)
  }

  /** Posts changes, which are in causal order, so that the browser goes on with it when the page is gone. */
  sendParting(documentId: string, changes: readonly PendingChange[]): Promise<void> {
    return this.#send(documentId, changes, true)
  }

  async #send(documentId: string, changes: readonly PendingChange[], keepalive: boolean): Promise<void> {
    const { fetch } = this.#environment
    if (!fetch || changes.length === 0) return
    const url = changesUrl(this.#webSocketUrl, documentId, this.#token())
    const { connections } = this.#tracker
    for await (const { durable, rejected } of postInParts(fetch, url, changes, keepalive)) {
      // On another connection it may be another server, or one that has lost something since.
      if (this.#tracker.connections !== connections) return
      this.#tracker.markDurable(documentId, durable)
      this.#tracker.reject(documentId, rejected)
    }
  }

  /**
   * The server was asked, and lacks these. What it goes on lacking is posted: the sync protocol takes it for sent,
   * or for something that the server has, as when a Bloom filter mistakes it for that. An upload that goes on is left alone.
   */
  missed(documentId: string, missing: readonly string[]): void {
    const lacked = new Set(missing)
    const changes = this.#worthPosting(documentId)
    const oldest = changes.find(({ hash }) => lacked.has(hash))
    if (changes.length === 0) this.#missed.delete(documentId)
    if (!oldest) return
    const now = this.#environment.now()
    const before = this.#missed.get(documentId)
    if (before?.hash === oldest.hash && now - before.since < MISSED_MS) return
    this.#missed.set(documentId, { hash: oldest.hash, since: now })
    if (before?.hash === oldest.hash) void this.send(documentId, firstOf(changes))
  }

  /**
   * What the server may take. And once on each connection what builds on what it has refused, so that it says of
   * each whether it refuses that, too; what it says of the others is that they wait, for ever.
   */
  #worthPosting(documentId: string): PendingChange[] {
    const { hopeful, stuck } = this.#tracker.document(documentId)
    return [...hopeful, ...stuck.filter(({ hash }) => !this.#postedNow.has(`${documentId} ${hash}`))]
  }

  get #postedNow(): Set<string> {
    const { connections } = this.#tracker
    if (this.#posted.connection !== connections) this.#posted = { connection: connections, changes: new Set() }
    return this.#posted.changes
  }
}

/** What is posted at once of changes that are missed. The first one at any rate: no other way is left for it. */
function firstOf(changes: readonly PendingChange[]): PendingChange[] {
  const some = fitting(changes, MISSED_BYTES_MAX)
  return some.length > 0 ? some : changes.slice(0, 1)
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
