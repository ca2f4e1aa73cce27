import * as A from "@automerge/automerge"
import type { DocHandle } from "@automerge/automerge-repo"

export interface TextDocument {
  text: string
}

/** Keeps a text field and a document the same, in both directions. Calls back after every edit made here. */
export function bindTextField(field: HTMLTextAreaElement, handle: DocHandle<TextDocument>, onEdit: () => void): void {
  field.value = handle.doc().text
  field.addEventListener("input", () => {
    handle.change(doc => A.updateText(doc, ["text"], field.value))
    onEdit()
  })
  handle.on("change", ({ doc, patchInfo }) => {
    if (doc.text === field.value) return
    const caret = movedCaret(patchInfo.before as A.Doc<TextDocument>, doc, field.selectionStart)
    field.value = doc.text
    field.setSelectionRange(caret, caret)
  })
  field.disabled = false
  field.focus()
  field.setSelectionRange(field.value.length, field.value.length)
}

function movedCaret(before: A.Doc<TextDocument>, after: A.Doc<TextDocument>, caret: number): number {
  if (caret >= before.text.length) return after.text.length
  return A.getCursorPosition(after, ["text"], A.getCursor(before, ["text"], caret))
}
