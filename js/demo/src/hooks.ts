import type { ConnectionState, HighwaterClientAdapter } from "@highwater/client"
import { useCallback, useEffect, useState, useSyncExternalStore } from "react"
import type { PageDoc, PageHandle } from "./page-doc.js"

/** The document, as it is now. */
export function useDoc(handle: PageHandle): PageDoc {
  const subscribe = useCallback(
    (listener: () => void) => {
      handle.on("change", listener)
      return () => void handle.off("change", listener)
    },
    [handle]
  )
  return useSyncExternalStore(subscribe, () => handle.doc() as PageDoc)
}

/** The address's fragment, where the page's url is. */
export function useHash(): string {
  return useSyncExternalStore(onHashChange, () => location.hash.slice(1))
}

function onHashChange(listener: () => void): () => void {
  window.addEventListener("hashchange", listener)
  return () => window.removeEventListener("hashchange", listener)
}

/** Where the connection stands. */
export function useConnection(adapter: HighwaterClientAdapter): ConnectionState {
  const subscribe = useCallback((listener: () => void) => adapter.onStateChange(listener), [adapter])
  return useSyncExternalStore(subscribe, () => adapter.state)
}

/** The time, looked at every so often while that is of use. */
export function useNow(everyMs: number, isRunning: boolean): number {
  const [now, setNow] = useState(() => Date.now())
  useEffect(() => {
    if (!isRunning) return
    setNow(Date.now())
    const timer = setInterval(() => setNow(Date.now()), everyMs)
    return () => clearInterval(timer)
  }, [everyMs, isRunning])
  return now
}
