// Unmodified automerge-repo clients, newest and oldest, behind one small surface, so that a scenario
// is written once. Only the differences between the two public interfaces live here.

import { EventEmitter, once } from "node:events"
import * as NewAutomerge from "@automerge/automerge"
import { Repo as NewRepo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter as NewAdapter } from "@automerge/automerge-repo-network-websocket"
import {
  Automerge as OldAutomerge,
  Repo as OldRepo,
  WebSocketClientAdapter as OldAdapter,
} from "../../interop-old/index.mjs"
import { events, until, within } from "./wait.mjs"

const UNAVAILABLE = "unavailable"
const RETRY_MS = 50

/** Emits "ack" whenever the server named its heads of a document. */
class Client extends EventEmitter {
  constructor(repo, adapter) {
    super()
    this.setMaxListeners(1000)
    this.repo = repo
    this.adapter = adapter
    this.network = repo.networkSubsystem
    this.isConnected = false
    this.network.on("peer", () => {
      this.isConnected = true
      this.emit("peer")
    })
    this.network.on("peer-disconnected", () => {
      this.isConnected = false
      this.emit("peer-disconnected")
    })
  }

  async connected() {
    if (!this.isConnected) await within(10_000, "a connection", once(this, "peer"))
    return this
  }

  async disconnected() {
    if (this.isConnected) await within(10_000, "a disconnection", once(this, "peer-disconnected"))
  }

  /** Resolves when the server has named exactly the heads that this client has. */
  async saved(...handles) {
    const look = notify => {
      const undo = [events([this], "ack")(notify), events(handles, "heads-changed")(notify)]
      return () => undo.forEach(f => f())
    }
    await until("the server to name our heads", look, () => handles.every(h => this.isSaved(h)), {
      explain: () => handles.map(h => `local ${this.heads(h)}, server ${this.serverHeads(h)}`).join("\n"),
    })
  }

  isSaved(handle) {
    const named = this.serverHeads(handle)
    return named !== undefined && sameHeads(named, this.heads(handle))
  }

  /** Gone for good, at once, and without an attempt to come back. */
  close() {
    this.isClosed = true
    this.adapter.connect = () => {}
    clearInterval(this.adapter.timerId)
    const { socket } = this.adapter
    if (!socket) return
    const { onOpen, onMessage, onClose, onError } = this.adapter
    const listeners = { open: onOpen, message: onMessage, close: onClose, error: onError }
    for (const [name, listener] of Object.entries(listeners)) {
      if (listener) socket.removeEventListener(name, listener)
    }
    socket.on("error", () => {})
    socket.terminate()
    this.network.emit("peer-disconnected", { peerId: this.adapter.remotePeerId })
  }
}

class NewClient extends Client {
  Automerge = NewAutomerge
  #watched = new WeakSet()
  #serverStorageId

  constructor(url, { peerId, storage, gossip } = {}) {
    const adapter = new NewAdapter(url, RETRY_MS)
    super(new NewRepo({ network: [adapter], peerId, storage, enableRemoteHeadsGossiping: gossip }), adapter)
  }

  create(content) {
    return this.#watch(this.repo.create(content))
  }

  createFrom(doc) {
    return this.#watch(this.repo.import(NewAutomerge.save(doc)))
  }

  /** The handle once it is ready; throws when the document is unavailable. */
  async find(url) {
    return this.#watch(await this.repo.find(url))
  }

  /** The handle of a document that was looked for before, whatever its state. */
  known(url) {
    return this.repo.handles[url.replace("automerge:", "")]
  }

  doc(handle) {
    return handle.doc()
  }

  content(handle) {
    return handle.doc()
  }

  heads(handle) {
    return handle.heads()
  }

  /** What an application gets to see: the sync info kept under the server's storage id. */
  serverHeads(handle) {
    const storageId = this.storageIdOfServer()
    return storageId && handle.getSyncInfo(storageId)?.lastHeads
  }

  storageIdOfServer() {
    const [server] = this.repo.peers
    if (server) this.#serverStorageId = this.repo.getStorageIdOfPeer(server)
    return this.#serverStorageId
  }

  #watch(handle) {
    if (!this.#watched.has(handle)) {
      this.#watched.add(handle)
      handle.on("remote-heads", () => this.emit("ack", handle))
    }
    return handle
  }
}

class OldClient extends Client {
  Automerge = OldAutomerge
  #serverHeads = new Map()

  constructor(url, { peerId } = {}) {
    const adapter = new OldAdapter(url)
    super(new OldRepo({ network: [adapter], peerId }), adapter)
    // This release has no sync info, so the heads are read off the server's sync messages.
    this.network.on("message", message => {
      if (message.type !== "sync") return
      const { heads } = OldAutomerge.decodeSyncMessage(message.data)
      this.#serverHeads.set(message.documentId, heads)
      this.emit("ack", this.repo.handles[message.documentId])
    })
  }

  create(content = {}) {
    const handle = this.repo.create()
    if (Object.keys(content).length > 0) handle.change(doc => Object.assign(doc, content))
    return handle
  }

  createFrom(doc) {
    const handle = this.repo.create()
    handle.update(() => OldAutomerge.clone(doc))
    return handle
  }

  async find(url) {
    const handle = this.repo.find(url)
    await handle.whenReady(["ready", UNAVAILABLE])
    if (handle.state === UNAVAILABLE) throw new Error(`Document ${url} is unavailable`)
    return handle
  }

  known(url) {
    return this.repo.find(url)
  }

  doc(handle) {
    return handle.docSync()
  }

  /**
   * The content as the document has it. The live view of this release shows texts that were overwritten
   * concurrently as a mixture of both, on one client this way and on another that way.
   */
  content(handle) {
    const doc = handle.docSync()
    return doc && OldAutomerge.load(OldAutomerge.save(doc))
  }

  heads(handle) {
    return OldAutomerge.getHeads(handle.docSync())
  }

  serverHeads(handle) {
    return this.#serverHeads.get(handle.documentId)
  }
}

export const newest = { name: "automerge-repo 2.5 with automerge 3", Client: NewClient }
export const oldest = { name: "automerge-repo 1.0 with automerge 2.1", Client: OldClient }
export const versions = [newest, oldest]

export function sameHeads(a, b) {
  return a.length === b.length && [...a].sort().join() === [...b].sort().join()
}

/**
 * Resolves when every [client, handle] of one document shows the same content for which `complete`
 * holds. Old and new clients write heads differently, so documents are not compared by them.
 */
export async function converged(pairs, complete = () => true) {
  const handles = pairs.map(([, handle]) => handle)
  const contents = () => pairs.map(([client, handle]) => client.content(handle))
  const agree = () => {
    const docs = contents()
    if (!docs.every(doc => doc && complete(doc))) return false
    const texts = new Set(docs.map(canonical))
    return texts.size === 1
  }
  await until(`${pairs.length} clients to converge`, events(handles, "heads-changed"), agree, {
    explain: () => pairs.map(pair => describeState(...pair)).join("\n"),
  })
}

function describeState(client, handle) {
  const doc = client.doc(handle)
  if (!doc) return `no document, handle is ${handle.state}`
  const changes = client.Automerge.getAllChanges(doc).length
  const heads = `${changes} changes, heads ${client.heads(handle)}, server's ${client.serverHeads(handle)}`
  const connection = client.isConnected ? "connected" : "not connected"
  return `${connection}, ${heads}: ${canonical(client.content(handle)).slice(0, 200)}`
}

/** JSON with sorted keys, so that equal documents give equal texts. */
export function canonical(value) {
  return JSON.stringify(value, (_, inner) =>
    inner && typeof inner === "object" && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner
  ) ?? "undefined"
}
