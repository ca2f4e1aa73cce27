/**
 * The client of Highwater for bare Automerge documents, without automerge-repo.
 *
 * @packageDocumentation
 */
export { openDocument, PlainDocument, type OpenDocumentOptions, type PlainDocumentEvents } from "./open-document.js"
export { sendLeftovers, type SendLeftoversOptions } from "./send-leftovers.js"
export { newDocumentId } from "../core/document-id.js"
export type { Change } from "../core/changes.js"
export type { ConnectionOptions, ConnectionState } from "../core/connection.js"
export type { Environment } from "../core/environment.js"
export { ConnectionStoppedError, UnsavedChangesError, type RejectedChange, type UnsavedDocument } from "../core/errors.js"
export { IndexedDBStore } from "../core/indexeddb-store.js"
export type { OutboxStore } from "../core/outbox.js"
export type { SaveState, SaveStatus, SaveStatusSource } from "../core/save-status.js"
export type { Token } from "../core/token.js"
export type { WaitOptions } from "../core/waiters.js"
