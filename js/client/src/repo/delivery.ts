import * as A from "@automerge/automerge/slim"
import type { DocHandle, DocumentId, Repo } from "@automerge/automerge-repo/slim"
import type { Environment } from "../core/environment.js"
import { changesUrl, postChanges } from "../core/http.js"
import type { SaveTracker } from "../core/save-tracker.js"

/** What a delivery works with. */
export interface DeliveryParts {
  readonly repo: Repo
  readonly tracker: SaveTracker
  readonly environment: Environment
  readonly url: string
  /** The last token that was used, for posting. */
  token(): string | undefined
}

/** Brings to the server what the repo would not: of documents that nobody has open, or that the repo has read from an older copy. */
export class Delivery {
  readonly #parts: DeliveryParts

  constructor(parts: DeliveryParts) {
    this.#parts = parts
  }

  /** The server can be reached again: try what could not be delivered. */
  retry(): void {
    for (const { documentId, pending } of this.#parts.tracker.documents) if (pending.size > 0) this.look(documentId)
  }

  /** The server lacks something of this document: see to it that the repo has what to send. */
  look(documentId: string): void {
    const { repo, tracker } = this.#parts
    const handle = repo.handles[documentId as DocumentId]
    if (!handle || tracker.document(documentId).lackedBy(contents(handle)).length > 0) void this.deliver(documentId)
  }

  /** Whether the repo has the document open, and so syncs it. */
  isOpen(documentId: string): boolean {
    return documentId in this.#parts.repo.handles
  }

  /** Opens the document in the repo, which syncs it, and gives the repo what it lacks. What cannot be opened is posted as it is. */
  async deliver(documentId: string): Promise<void> {
    const { repo, tracker } = this.#parts
    if (tracker.isForgotten(documentId)) return
    try {
      // Not only when ready: a document that the server does not have either is made of what is owed.
      const allowableStates = ["ready", "requesting", "unavailable"]
      const handle = await repo.find(documentId as DocumentId, { allowableStates })
      if (tracker.isForgotten(documentId)) return
      const lacked = tracker.document(documentId).lackedBy(contents(handle))
      if (lacked.length > 0) handle.update(doc => A.applyChanges(doc, lacked.map(({ bytes }) => bytes))[0])
    } catch (error) {
      console.warn(`highwater: could not open ${documentId}, which has unsaved changes:`, error)
    }
    await this.#post(documentId)
  }

  async #post(documentId: string): Promise<void> {
    const { tracker, environment, url, token } = this.#parts
    if (tracker.isForgotten(documentId)) return
    const missing = tracker.document(documentId).missingHere
    if (missing.length === 0 || !environment.fetch || !tracker.isConnected) return
    const answer = await postChanges(environment.fetch, changesUrl(url, documentId, token()), missing, false)
    if (!answer) return
    tracker.markDurable(documentId, answer.durable)
    tracker.reject(documentId, answer.rejected)
  }
}

/** A handle that is not ready has none that it would show. */
function contents(handle: DocHandle<unknown>): A.Doc<unknown> {
  return handle.isReady() ? handle.doc() : A.init()
}
