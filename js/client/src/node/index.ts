/**
 * For programs on Node: an outbox in a file.
 *
 * @packageDocumentation
 */
export { FileOutboxStore } from "./file-store.js"
