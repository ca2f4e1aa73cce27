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
  readonly #last = new Map<string, SyncLikeMessage>()
  readonly #underWay = new Set<string>()

  constructor(show: (message: SyncLikeMessage) => void) {
    this.#show = show
  }

  /** The server has said this. */
  heard(message: SyncLikeMessage): void {
    this.#last.set(message.documentId, message)
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
    const reminder = last && remind(last)
    if (reminder) this.#show(reminder)
  }
}

/** The message without changes and requests. Undefined if it says that the server has nothing, which makes the repo send all again. */
function remind(message: SyncLikeMessage): SyncLikeMessage | undefined {
  const decoded = A.decodeSyncMessage(message.data)
  if (decoded.heads.length === 0) return undefined
  return { ...message, data: A.encodeSyncMessage({ ...decoded, need: [], changes: [] }) }
}
