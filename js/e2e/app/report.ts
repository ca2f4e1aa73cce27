import { getHeads } from "@automerge/automerge"
import type { DocHandle } from "@automerge/automerge-repo"
import type { SaveStatusSource } from "@highwater/client"

/** What the test is told. It listens on a function that the browser's debugger puts into the page. */
export type Report =
  | { type: "open"; url: string }
  | { type: "edit"; count: number; heads: string[] }
  | { type: "status"; state: string; unsaved: number; heads: string[] }
  | { type: "chip"; state: string }

export function report(event: Report): void {
  const tell = (window as { report?: (text: string) => void }).report
  tell?.(JSON.stringify({ ...event, at: Date.now() }))
}

/** The document's heads, in hex as the server names them. */
export function headsOf(handle: DocHandle<any>): string[] {
  return getHeads(handle.doc())
}

/** Tells every status, with the heads that the document has while it holds. */
export function reportStatus(source: SaveStatusSource, handle: DocHandle<unknown>): void {
  let last: unknown
  const look = () => {
    const status = source.saveStatus(handle.documentId)
    if (status === last) return
    last = status
    report({ type: "status", state: status.state, unsaved: status.unsavedChanges, heads: headsOf(handle) })
  }
  source.onSaveStatus(look)
  look()
}

/** Tells what the chip shows, whenever that changes. */
export function reportChip(place: HTMLElement): void {
  let last: string | undefined
  new MutationObserver(() => {
    const state = place.querySelector<HTMLElement>("[data-state]")?.dataset.state
    if (state === undefined || state === last) return
    last = state
    report({ type: "chip", state })
  }).observe(place, { subtree: true, childList: true, attributes: true })
}
