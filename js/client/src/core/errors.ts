/** Why the server refuses every change of a document that was deleted there. */
export const DELETED = "the document was deleted"

/** A change that the server refused, and why. */
export interface RejectedChange {
  /** The change's hash, in hex. */
  readonly hash: string
  /** The server's words. */
  readonly reason: string
}

/** The changes of one document that are not on the server. */
export interface UnsavedDocument {
  /** The document's id. */
  readonly documentId: string
  /**
   * All hashes that the server has not called durable, in causal order. Includes the rejected ones. None, if it has
   * called all of them durable before and only did not confirm that on the last connection.
   */
  readonly hashes: readonly string[]
  /** Those of them that the server will never take. */
  readonly rejected: readonly RejectedChange[]
}

/** Why waiting for the server ended. */
export type UnsavedReason = "timeout" | "rejected" | "stopped" | "deleted" | "outbox"

const WHAT_TO_DO: Record<UnsavedReason, string> = {
  timeout: "the server did not confirm them in time; wait longer, or keep this device's copy",
  rejected: "the server refused some of them for good; show the user what they are, and keep this device's copy",
  stopped: "the connection has ended for good; see the cause",
  deleted: "the document was deleted here",
  outbox: "what earlier sessions left in the outbox on this device is not known, as it could not be read; see the cause",
}

/** Waiting ended while these changes were not durable on the server. They are still in the outbox. */
export class UnsavedChangesError extends Error {
  override readonly name = "UnsavedChangesError"
  /** The documents, each with its changes. */
  readonly documents: readonly UnsavedDocument[]
  /** What ended the wait. */
  readonly reason: UnsavedReason

  constructor(reason: UnsavedReason, documents: readonly UnsavedDocument[], cause?: unknown) {
    const count = documents.reduce((sum, { hashes }) => sum + hashes.length, 0)
    const names = documents.map(({ documentId }) => documentId).join(", ")
    super(`${count} changes are not saved on the server (${names}): ${WHAT_TO_DO[reason]}`, cause === undefined ? {} : { cause })
    this.documents = documents
    this.reason = reason
  }
}

/** The server ended the connection in a way that makes coming back useless. */
export class ConnectionStoppedError extends Error {
  override readonly name = "ConnectionStoppedError"
  /** The WebSocket close code, or 0 if there was none. */
  readonly code: number

  constructor(code: number, advice: string, said = "") {
    super(`the connection was closed for good (${code}): ${advice}${said ? `; the server says: ${said}` : ""}`)
    this.code = code
  }
}
