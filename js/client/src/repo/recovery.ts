import * as A from "@automerge/automerge/slim"
import type { DocumentId, Repo } from "@automerge/automerge-repo/slim"
import type { Environment } from "../core/environment.js"
import { changesUrl, postChanges } from "../core/http.js"
import type { Outbox, OutboxChange, OutboxContents } from "../core/outbox.js"
import type { RememberedDocument, SaveTracker } from "../core/save-tracker.js"
import { Tabs } from "../core/tabs.js"

/** What a recovery works with. */
export interface RecoveryParts {
  readonly repo: Repo
  readonly tracker: SaveTracker
  readonly outbox: Outbox
  readonly environment: Environment
  readonly url: string
  /** The outbox's name; tabs with the same one share it. */
  readonly name: string
  /** Names this tab among others. */
  readonly self: string
  /** The last token that was used, for posting. */
  token(): string | undefined
}

/** Brings to the server what earlier sessions and tabs that are gone have left in the outbox. */
export class Recovery {
  readonly #parts: RecoveryParts
  readonly #tabs: Tabs
  #isEnded = false
  readonly #adopted = new Set<string>()

  constructor(parts: RecoveryParts) {
    this.#parts = parts
    this.#tabs = new Tabs(parts.name, parts.self, parts.environment, () => void this.#adopt())
  }

  /** Reads what was durable before, then looks for what was left behind. */
  async start(): Promise<void> {
    const { tracker, outbox } = this.#parts
    try {
      const { durableHeads, serverId } = await outbox.load()
      tracker.remember(new Map([...durableHeads].map(([id, heads]) => [id, { durableHeads: heads, owed: [] }])), serverId)
    } catch (error) {
      console.warn("highwater: could not read the outbox; what earlier sessions left is not sent now:", error)
    }
    if (this.#isEnded) return
    // Without other tabs to ask, what is left is known in the same turn, and nobody waits on half the truth.
    this.#tabs.start()
    if (!this.#parts.environment.locks) return
    tracker.isReady = true
    tracker.changed()
  }

  /** The server can be reached again: try what could not be delivered. */
  retry(): void {
    for (const { documentId, missingHere } of this.#parts.tracker.documents) {
      if (missingHere.length > 0) void this.#deliver(documentId)
    }
  }

  /** Lets another tab take over. */
  end(): void {
    this.#isEnded = true
    this.#tabs.end()
  }

  async #adopt(): Promise<void> {
    const { tracker, outbox } = this.#parts
    try {
      const [contents, isLiving] = await Promise.all([outbox.load(), this.#tabs.areLiving()])
      if (this.#isEnded) return
      const left = contents.changes.filter(change => !isLiving(change.writer) && !this.#adopted.has(change.hash))
      for (const { hash } of left) this.#adopted.add(hash)
      const documents = byDocument(contents, left)
      tracker.remember(documents, contents.serverId)
      for (const id of documents.keys()) void this.#deliver(id)
    } catch (error) {
      console.warn("highwater: could not read the outbox:", error)
    } finally {
      tracker.isReady = true
      tracker.changed()
    }
  }

  /** Opens the document in the repo, which syncs it. What cannot be opened is posted as it is. */
  async #deliver(documentId: string): Promise<void> {
    const { repo, tracker } = this.#parts
    try {
      // Not only when ready: a document that the server does not have either is made of what is owed.
      const allowableStates = ["ready", "requesting", "unavailable"]
      const handle = await repo.find(documentId as DocumentId, { allowableStates })
      const missing = tracker.document(documentId).missingHere.map(({ bytes }) => bytes)
      if (missing.length > 0) handle.update(doc => A.applyChanges(doc, missing)[0])
    } catch (error) {
      console.warn(`highwater: could not open ${documentId}, which has unsaved changes:`, error)
    }
    await this.#post(documentId)
  }

  async #post(documentId: string): Promise<void> {
    const { tracker, environment, url, token } = this.#parts
    const missing = tracker.document(documentId).missingHere
    if (missing.length === 0 || !environment.fetch || !tracker.isConnected) return
    const answer = await postChanges(environment.fetch, changesUrl(url, documentId, token()), missing, false)
    if (!answer) return
    tracker.markDurable(documentId, answer.durable)
    tracker.reject(documentId, answer.rejected)
  }
}

function byDocument(contents: OutboxContents, left: readonly OutboxChange[]): Map<string, RememberedDocument> {
  const documents = new Map<string, RememberedDocument & { owed: OutboxChange[] }>()
  for (const change of left) {
    const { documentId } = change
    let document = documents.get(documentId)
    if (!document) {
      document = { durableHeads: contents.durableHeads.get(documentId) ?? [], owed: [] }
      documents.set(documentId, document)
    }
    document.owed.push(change)
  }
  return documents
}
