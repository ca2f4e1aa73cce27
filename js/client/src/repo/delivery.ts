import * as A from "@automerge/automerge/slim"
import type { DocHandle, DocumentId, Repo } from "@automerge/automerge-repo/slim"
import type { Post } from "../core/post.js"
import type { SaveTracker } from "../core/save-tracker.js"

/** What a delivery works with. */
export interface DeliveryParts {
  readonly repo: Repo
  readonly tracker: SaveTracker
  readonly post: Post
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
    const { tracker, post } = this.#parts
    if (tracker.isForgotten(documentId) || !tracker.isConnected) return
    await post.send(documentId, tracker.document(documentId).missingHere)
  }
}

/** A handle that is not ready has none that it would show. */
function contents(handle: DocHandle<unknown>): A.Doc<unknown> {
  return handle.isReady() ? handle.doc() : A.init()
}
