/**
 * React bindings: a hook and a chip that say whether changes are saved.
 *
 * @packageDocumentation
 */
export { SaveStatusProvider, type SaveStatusProviderProps } from "./provider.js"
export { SaveStatus, SAVE_STATUS_WORDS, type SaveStatusProps } from "./save-status.js"
export { useSaveStatus, type SaveStatusDocument, type UseSaveStatusOptions } from "./use-save-status.js"
