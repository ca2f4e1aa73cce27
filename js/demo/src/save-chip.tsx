import type { SaveStatus } from "@highwater/client"
import { useSaveStatus } from "@highwater/client/react"
import { useEffect, useState } from "react"
import { useNow } from "./hooks.js"
import type { PageHandle } from "./page-doc.js"

/** After so long, "Saving…" would be a guess. */
const LATE_MS = 3000
/** What lasts shorter than this is not read out. */
const READ_OUT_MS = 1200

/** What the chip says, and what it means. No word claims more than is known. */
export function chipWords({ state, unsavedChanges }: SaveStatus, isLate: boolean): [word: string, meaning: string] {
  const count = unsavedChanges > 0 ? ` · ${unsavedChanges}` : ""
  switch (state) {
    case "saved":
      return ["Saved", "The server has every change on its disk."]
    case "saving":
      if (isLate) return [`Not confirmed${count}`, "Sent, but the server has not answered. The changes are kept until it does."]
      return ["Saving…", "On its way to the server's disk."]
    case "savedOnDevice":
      return [`On this device only${count}`, "No connection. The changes are stored on this device and will be sent."]
    case "notSaved":
      return [`Not saved${count}`, "No connection, and the changes are not stored on this device yet."]
    case "rejected":
      return ["Not accepted", "The server refused a change and will never take it."]
  }
}

/** Says whether the page is saved. */
export function SaveChip({ handle }: { handle: PageHandle }) {
  const status = useSaveStatus(handle, { smooth: true })
  const { state, unsavedSince } = status
  const now = useNow(500, state === "saving")
  const isLate = state === "saving" && unsavedSince !== undefined && now - unsavedSince > LATE_MS
  const [word, meaning] = chipWords(status, isLate)
  return (
    <>
      <span className="chip" data-state={state} data-late={isLate} title={meaning}>
        <span className="dot" aria-hidden="true" />
        {word}
      </span>
      <ReadOut words={state === "saving" && !isLate ? "" : `${word.replace(/ · \d+$/, "")}. ${meaning}`} />
    </>
  )
}

/** For screen readers, which would otherwise be told of every keystroke. */
function ReadOut({ words }: { words: string }) {
  const [said, setSaid] = useState("")
  useEffect(() => {
    if (!words) return
    const timer = setTimeout(() => setSaid(words), READ_OUT_MS)
    return () => clearTimeout(timer)
  }, [words])
  return (
    <span className="read-out" role="status" aria-live="polite">
      {said}
    </span>
  )
}
