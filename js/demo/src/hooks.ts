import { useEffect, useState, useSyncExternalStore } from "react"
import type { PageDoc, PageHandle } from "./page-doc.js"

/** The document, as it is now. */
export function useDoc(handle: PageHandle): PageDoc {
  return useSyncExternalStore(
    listener => {
      handle.on("change", listener)
      return () => void handle.off("change", listener)
    },
    () => handle.doc() as PageDoc
  )
}

/** The address's fragment, where the page's url is. */
export function useHash(): string {
  return useSyncExternalStore(
    listener => {
      window.addEventListener("hashchange", listener)
      return () => window.removeEventListener("hashchange", listener)
    },
    () => decodeURIComponent(location.hash.slice(1))
  )
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
