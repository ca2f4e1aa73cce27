import * as A from "@automerge/automerge/slim"
import type { SyncLikeMessage } from "./messages.js"

/**
 * Makes the repo send changes at once.
 *
 * automerge-repo 2.5 collects changes for 100 ms before it sends them, and that time cannot be set from
 * outside. But it answers every sync message in the same turn, with all that the sender lacks. So when there
 * is something to send, it is shown the server's last message again, without what it has already served.
 */
export class Prompter {
  readonly #show: (message: SyncLikeMessage) => void
  /** What to show, by document: for long-lived pages with many documents, without the changes. */
  readonly #last = new Map<string, SyncLikeMessage>()
  readonly #underWay = new Set<string>()

  constructor(show: (message: SyncLikeMessage) => void) {
    this.#show = show
  }

  /** The server has said this. */
  heard(message: SyncLikeMessage, decoded: A.DecodedSyncMessage): void {
    const { documentId } = message
    // Shown that the server has nothing, the repo would send all again.
    if (decoded.heads.length === 0) this.#last.delete(documentId)
    else this.#last.set(documentId, { ...message, data: A.encodeSyncMessage({ ...decoded, need: [], changes: [] }) })
  }

  /** The connection has ended, and with it what the server has said on it. */
  forget(): void {
    this.#last.clear()
  }

  /** Has the repo send what is new in this document, one turn later. */
  async prompt(documentId: string): Promise<void> {
    if (this.#underWay.has(documentId)) return
    this.#underWay.add(documentId)
    // So that changes made together go together.
    await Promise.resolve()
    this.#underWay.delete(documentId)
    const last = this.#last.get(documentId)
    if (last) this.#show(last)
  }
}
