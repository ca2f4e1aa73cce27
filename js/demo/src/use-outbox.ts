import type { OutboxChange } from "@highwater/client"
import { useEffect, useState } from "react"
import type { Session } from "./session.js"

const SOON_MS = 50
const LATER_MS = 1000

/** What is in the outbox, read from the disk of this device: also what other tabs and earlier sessions left there. */
export function useOutbox({ adapter, outbox }: Session): readonly OutboxChange[] {
  const [changes, setChanges] = useState<readonly OutboxChange[]>([])
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined
    let hasEnded = false
    const look = async () => {
      clearTimeout(timer)
      timer = undefined
      const found = await outbox.load().then(({ changes }) => changes, () => [])
      if (hasEnded) return
      setChanges(before => (before.length === 0 && found.length === 0 ? before : found))
      // Rows are taken out a little after the status has changed.
      if (found.length > 0) timer ??= setTimeout(look, LATER_MS)
    }
    let soon: ReturnType<typeof setTimeout> | undefined
    const lookSoon = () => {
      soon ??= setTimeout(() => {
        soon = undefined
        void look()
      }, SOON_MS)
    }
    const unsubscribe = adapter.onSaveStatus(lookSoon)
    lookSoon()
    return () => {
      hasEnded = true
      clearTimeout(timer)
      clearTimeout(soon)
      unsubscribe()
    }
  }, [adapter, outbox])
  return changes
}
