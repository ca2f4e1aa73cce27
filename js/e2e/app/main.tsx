// One text in a field. The same source for the stock adapter and for Highwater's: what differs is in
// repo.stock.ts and repo.highwater.ts, one of which is bundled as "construct".
//
//   ?server=ws://…                 the application, with no document open
//   ?server=ws://…&document=new    a new document
//   ?server=ws://…&document=…      this document

import { createRoot } from "react-dom/client"
import type { AutomergeUrl, DocHandle, Repo } from "@automerge/automerge-repo"
import { SaveStatus, SaveStatusProvider } from "@highwater/client/react"
import { construct } from "construct"
import { headsOf, report, reportChip, reportStatus } from "./report.js"
import { bindTextField, type TextDocument } from "./text-field.js"

const parameters = new URL(location.href).searchParams
const field = document.querySelector("textarea")!
const place = document.querySelector<HTMLElement>("#chip")!

const { repo, source } = construct(parameters.get("server")!)
if (source) {
  reportChip(place)
  createRoot(place).render(
    <SaveStatusProvider source={source}>
      <SaveStatus />
    </SaveStatusProvider>
  )
}

const wanted = parameters.get("document")
if (wanted !== null) {
  const handle = await open(repo, wanted)
  if (source) reportStatus(source, handle)
  let edits = 0
  bindTextField(field, handle, () => report({ type: "edit", count: ++edits, heads: headsOf(handle) }))
  report({ type: "open", url: handle.url })
} else report({ type: "open", url: "" })

async function open(repo: Repo, wanted: string): Promise<DocHandle<TextDocument>> {
  if (wanted !== "new") return repo.find<TextDocument>(wanted as AutomergeUrl)
  const handle = repo.create<TextDocument>({ text: "" })
  const address = new URL(location.href)
  address.searchParams.set("document", handle.url)
  history.replaceState(null, "", address)
  return handle
}
