/**
 * The client of Highwater for automerge-repo.
 *
 * @packageDocumentation
 */
export { HighwaterClientAdapter, type HandleOrId, type HighwaterClientAdapterOptions } from "./repo/adapter.js"
export type { BackoffOptions } from "./core/backoff.js"
export type { Change } from "./core/changes.js"
export type { ConnectionOptions, ConnectionState } from "./core/connection.js"
export type {
  Environment,
  EventSource,
  FetchInit,
  FetchLike,
  FetchResponse,
  LocksLike,
  WebSocketConstructor,
  WebSocketLike,
} from "./core/environment.js"
export {
  ConnectionStoppedError,
  UnsavedChangesError,
  type RejectedChange,
  type UnsavedDocument,
  type UnsavedReason,
} from "./core/errors.js"
export { IndexedDBStore } from "./core/indexeddb-store.js"
export type { OwedChange } from "./core/ledger.js"
export type { DurableHeads, OutboxBatch, OutboxChange, OutboxContents, OutboxStore } from "./core/outbox.js"
export type { SaveState, SaveStatus, SaveStatusSource, Timers } from "./core/save-status.js"
export type { Token } from "./core/token.js"
export type { WaitOptions } from "./core/waiters.js"
