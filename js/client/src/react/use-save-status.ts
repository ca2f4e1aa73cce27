import { useCallback, useMemo, useSyncExternalStore } from "react"
import type { SaveStatus } from "../core/save-status.js"
import { useSource } from "./provider.js"
import { SteadyStatus } from "./steady-status.js"

/** A document: a handle, or anything else with its id. */
export interface SaveStatusDocument {
  readonly documentId: string
}

/** Settings of {@link useSaveStatus}. */
export interface UseSaveStatusOptions {
  /** Wait a moment before showing that all is saved, so that the display does not flicker. Default false. */
  smooth?: boolean
}

// What a server renders, and the browser first: the two must be the same, and a server knows nothing of this device.
const NOT_KNOWN: SaveStatus = Object.freeze({ state: "saving", unsavedChanges: 0, unsavedSince: undefined, oldestUnsavedAge: 0 })
const getOnServer = () => NOT_KNOWN

/** The save status of one document, or of all of them together. */
export function useSaveStatus(document?: SaveStatusDocument, { smooth = false }: UseSaveStatusOptions = {}): SaveStatus {
  const source = useSource()
  const documentId = document?.documentId
  const steady = useMemo(() => (smooth ? new SteadyStatus(source, documentId) : undefined), [source, documentId, smooth])
  const subscribe = useCallback(
    (listener: () => void) => (steady ? steady.subscribe(listener) : source.onSaveStatus(listener)),
    [source, steady]
  )
  const get = useCallback(() => (steady ? steady.get() : source.saveStatus(documentId)), [source, steady, documentId])
  return useSyncExternalStore(subscribe, get, getOnServer)
}
