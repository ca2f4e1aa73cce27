import * as A from "@automerge/automerge/slim"
import type { PageHandle } from "./page-doc.js"
import type { Server } from "./server.js"

/** The address of what is shown in place of a page that was closed: it names the page and its last change. */
export function closedPageUrl(handle: PageHandle, { webSocketUrl }: Server): string {
  const url = new URL("closed.html", location.href)
  const hash = A.getHeads(handle.doc()).at(-1) ?? ""
  url.search = new URLSearchParams({ page: handle.url, change: hash, server: webSocketUrl, back: location.href }).toString()
  url.hash = ""
  return url.href
}
