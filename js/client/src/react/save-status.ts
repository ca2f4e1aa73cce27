import { createElement, type ReactNode } from "react"
import type { SaveState } from "../core/save-status.js"
import { useSaveStatus, type SaveStatusDocument } from "./use-save-status.js"

/** What the chip says. No word claims more than is known. */
export const SAVE_STATUS_WORDS: Readonly<Record<SaveState, string>> = {
  saved: "Saved",
  saving: "Saving…",
  savedOnDevice: "Saved on this device only",
  notSaved: "Not saved",
  rejected: "Not accepted by the server",
}

/** Properties of {@link SaveStatus}. */
export interface SaveStatusProps {
  /** The document; without one, all documents together. */
  document?: SaveStatusDocument
  /** Do not flicker. Default true. */
  smooth?: boolean
  /** Other words, for example in another language. */
  words?: Partial<Record<SaveState, string>>
  /** Class of the element, for styles. The state is in `data-state`. */
  className?: string
}

/**
 * A chip that says whether changes are saved. It has no style of its own. While changes are not on the server
 * it says how many.
 */
export function SaveStatus({ document, smooth = true, words, className }: SaveStatusProps): ReactNode {
  const { state, unsavedChanges } = useSaveStatus(document, { smooth })
  const word = words?.[state] ?? SAVE_STATUS_WORDS[state]
  const isWaiting = state !== "saved" && state !== "saving" && unsavedChanges > 0
  const text = isWaiting ? `${word} (${unsavedChanges})` : word
  // Screen readers interrupt for what needs somebody's attention, and only for that.
  const role = state === "notSaved" || state === "rejected" ? "alert" : "status"
  return createElement("span", { className, role, "data-state": state }, text)
}
