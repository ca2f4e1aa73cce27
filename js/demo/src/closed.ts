// What is left when a page was closed at once: no repo and no Automerge, only the question to the server.

import { IndexedDBStore } from "@highwater/client"
import { outboxName, serverOf, type Server } from "./server.js"

const ASK_MS = 500
const ASK_TIMES = 6

const wanted = new URLSearchParams(location.search)
const documentId = (wanted.get("page") ?? "").replace(/^automerge:/, "")
const change = wanted.get("change") ?? ""
const server = serverOf(location)

/** `undefined` if the server could not be asked. */
async function isOnServer({ httpUrl }: Server): Promise<boolean | undefined> {
  const path = `v1/docs/${encodeURIComponent(documentId)}/changes/${encodeURIComponent(change)}`
  try {
    const { status } = await fetch(new URL(path, httpUrl), { cache: "no-store" })
    return status === 200 ? true : status === 404 ? false : undefined
  } catch {
    return undefined
  }
}

async function isInOutbox(): Promise<boolean> {
  const { changes } = await new IndexedDBStore(outboxName(server)).load()
  return changes.some(({ hash }) => hash === change)
}

function say(verdict: string, words: string): void {
  const place = document.getElementById("verdict")!
  place.dataset.verdict = verdict
  place.textContent = words
}

async function ask(): Promise<void> {
  let answer: boolean | undefined
  for (let time = 0; time < ASK_TIMES && !answer; time++) {
    if (time > 0) await new Promise(resolve => setTimeout(resolve, ASK_MS))
    answer = await isOnServer(server)
    if (answer) return say("durable", "The server has it on its disk.")
  }
  const who = answer === undefined ? "The server cannot be reached" : "The server does not have it yet"
  if (await isInOutbox().catch(() => false)) {
    return say("kept", `${who}. It is in the outbox on this device, and is sent when the page is opened again.`)
  }
  say("unknown", `${who}, and it is not in the outbox of this device.`)
}

document.getElementById("hash")!.textContent = change.slice(0, 16)
const back = new URL(wanted.get("back") ?? "./", location.href)
// Only to our own pages, whoever wrote the address.
if (back.origin === location.origin) document.getElementById("back")!.setAttribute("href", back.href)
void ask()
