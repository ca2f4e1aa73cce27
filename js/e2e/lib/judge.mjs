// What the server has: asked by a fresh client that has never had anything of it.

import { Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { events, until } from "../../interop/lib/wait.mjs"

const STALLED_MS = 3000

/**
 * Watches the text of a document on the server until `isComplete` holds, or until nothing has come for a while.
 * Returns the last text, and when it came.
 */
export async function textOnServer(url, documentUrl, isComplete, { stalledMs = STALLED_MS } = {}) {
  return withClient(url, repo => watch(repo, documentUrl, isComplete, stalledMs))
}

async function withClient(url, work) {
  const repo = new Repo({ network: [new WebSocketClientAdapter(url)] })
  try {
    return await work(repo)
  } finally {
    await repo.shutdown()
  }
}

async function watch(repo, documentUrl, isComplete, stalledMs) {
  // Unavailable is an answer as well, and may change.
  const handle = await repo.find(documentUrl, { allowableStates: ["ready", "requesting", "unavailable"] })
  return new Promise(resolve => {
    let result = { text: "", at: Date.now() }
    let timer
    const end = () => {
      clearTimeout(timer)
      resolve(result)
    }
    const look = doc => {
      const text = doc?.text ?? ""
      if (text !== result.text) result = { text, at: Date.now() }
      clearTimeout(timer)
      if (isComplete(text)) return end()
      timer = setTimeout(end, stalledMs)
    }
    // The first contents are announced before the handle calls itself ready.
    handle.on("heads-changed", ({ doc }) => look(doc))
    look(handle.isReady() ? handle.doc() : undefined)
  })
}

/** Makes a document that the server has; returns its url. */
export async function createDocument(url, content) {
  return withClient(url, async repo => {
    const handle = repo.create(content)
    const isThere = () => repo.peers.some(peer => {
      const storage = repo.getStorageIdOfPeer(peer)
      return storage && handle.getSyncInfo(storage)?.lastHeads.join() === handle.heads().join()
    })
    await until("the new document to be on the server", events([handle], "remote-heads"), isThere)
    return handle.url
  })
}

/** Of these changes, those that Highwater does not call durable. */
export async function notDurable(url, documentUrl, hashes) {
  const missing = []
  for (const hash of new Set(hashes)) {
    const address = new URL(`/v1/docs/${documentUrl}/changes/${hash}`, url.replace(/^ws/, "http"))
    const { status } = await fetch(address)
    if (status !== 200 && status !== 404) throw new Error(`${address} answered ${status}`)
    if (status === 404) missing.push(hash)
  }
  return missing
}
