import type { PeerId, PeerMetadata } from "@automerge/automerge-repo/slim"
import type { RejectedChange } from "../core/errors.js"

/** The key in `peerMetadata` that says which extensions a side knows. */
export const EXTENSION = "highwater"
/** Their version. */
export const EXTENSION_VERSION = 1

/** What is at the head of every message about a document. */
export interface Addressed {
  senderId: PeerId
  targetId: PeerId
  documentId: string
}

/** The server's answer to `join`. */
export interface PeerMessage {
  type: "peer"
  senderId: PeerId
  peerMetadata?: PeerMetadata & { highwater?: number }
}

/** Why the server is about to close the connection. */
export interface ErrorMessage {
  type: "error"
  message: string
}

/** The server will never take these changes. */
export interface RejectedMessage extends Addressed {
  type: "highwater-rejected"
  rejected: RejectedChange[]
}

/** Asks which of these changes are durable. */
export interface HaveMessage extends Addressed {
  type: "highwater-have"
  query: number
  hashes: string[]
}

/** The answer to {@link HaveMessage}. */
export interface DurableMessage extends Addressed {
  type: "highwater-durable"
  query: number
  durable: string[]
  missing: string[]
}

/** The server has no such document, or it was deleted. */
export interface UnavailableMessage extends Addressed {
  type: "doc-unavailable"
}

/** A message that belongs to the repo. */
export interface SyncLikeMessage extends Addressed {
  type: "sync" | "request"
  data: Uint8Array
}

/** What the adapter itself looks at. Everything else goes to the repo unseen. */
export type FromServer = PeerMessage | ErrorMessage | RejectedMessage | DurableMessage | UnavailableMessage | SyncLikeMessage
