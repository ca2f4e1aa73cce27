import * as A from "@automerge/automerge"
import { cbor, isValidDocumentId } from "@automerge/automerge-repo"
import { splitChunks } from "../../src/core/changes.js"
import type { FetchLike } from "../../src/core/environment.js"
import { Line, type Acceptor, type FakeSocket } from "./socket.js"

interface Client {
  peerId?: string
  extended: boolean
  /** The document of a socket that speaks the plain protocol. */
  plain?: string
  syncStates: Map<string, A.SyncState>
  /** The last sync message, by document. */
  last: Map<string, string>
  /** The deleted documents that it was told about. */
  toldDeleted: Set<string>
}

interface Work {
  socket: FakeSocket
  run: () => void
}

/**
 * A sync server without a network and with a disk that can be slow: what it is sent becomes part of a document
 * `commitMs` later, and only then does it speak of it. A kill loses what was not committed.
 */
export class FakeServer implements Acceptor {
  documents = new Map<string, A.Doc<unknown>>()
  readonly #deleted = new Set<string>()
  /** What a restore brings back. */
  #backup = new Map<string, A.Doc<unknown>>()
  #restores = 0
  /** What the server had and has that last spoke on a line. A restored server is another in this. */
  readonly connectedTo = new Map<Line, Map<string, A.Doc<unknown>>>()
  readonly #clients = new Map<FakeSocket, Client>()
  readonly #lines: Line[] = []
  readonly #queue: Work[] = []
  #timer: ReturnType<typeof setTimeout> | undefined
  isRunning = true
  commitMs = 1
  extended = true
  storageId = "server-storage"
  /** If set, other tokens are refused. */
  token: string | undefined
  /** How many changes there are in one message at most. */
  changesMax = Infinity
  /** Which changes are refused for good. */
  refuses: (change: A.DecodedChange) => boolean = () => false
  /** What clients were told, by line: heads and durable hashes in frames that arrived. */
  readonly told = new Map<Line, Map<string, Set<string>>>()
  readonly requests: Array<{ url: string; body: Uint8Array }> = []
  httpStatus = 200

  line(latency?: number): Line {
    const line = new Line(this, latency)
    line.mode = this.isRunning ? "up" : "refused"
    this.#lines.push(line)
    this.told.set(line, new Map())
    return line
  }

  /** All hashes that are durable here, or in these documents. */
  hashes(documentId: string, documents = this.documents): Set<string> {
    const doc = documents.get(documentId)
    return new Set(doc ? A.getChangesMetaSince(doc, []).map(({ hash }) => hash) : [])
  }

  /** Stops as after SIGTERM: commits what it has, and says when to come back. */
  stop(): void {
    for (const { run } of this.#queue.splice(0)) run()
    this.#end(socket => socket.end(1012, "restarting; retry in 200 ms"))
  }

  /** Stops as after kill -9. */
  kill(): void {
    this.#queue.splice(0)
    this.#end(socket => socket.end(1006))
  }

  start(): void {
    this.isRunning = true
    for (const line of this.#lines) if (line.mode === "refused") line.mode = "up"
  }

  /** Keeps a copy of everything. */
  backup(): void {
    this.#backup = copyOf(this.documents)
  }

  /** Goes back to the last backup, under its old name or as another server. */
  restore(storageId = this.storageId): void {
    this.kill()
    this.documents = copyOf(this.#backup)
    this.storageId = storageId
    this.start()
  }

  /** As after the documented way to restore, which gives the server another name. */
  replace(): void {
    this.restore(`server-storage ${++this.#restores}`)
  }

  /** Deletes a document, and tells those who have it open. */
  delete(documentId: string): void {
    this.documents.delete(documentId)
    this.#deleted.add(documentId)
    for (const [socket, { syncStates }] of this.#clients) if (syncStates.has(documentId)) this.#tellDeleted(socket, documentId)
  }

  /** Closes every connection with this code. */
  closeAll(code: number, reason = ""): void {
    for (const socket of [...this.#clients.keys()]) {
      socket.end(code, reason)
      this.gone(socket)
    }
  }

  accept(socket: FakeSocket): void {
    const line = this.#lines.find(({ sockets }) => sockets.has(socket))!
    const { documents } = this
    socket.onDelivered = data => {
      this.connectedTo.set(line, documents)
      this.#noteTold(line, socket, data)
    }
    const url = new URL(socket.url)
    if (this.token !== undefined && url.searchParams.get("token") !== this.token) {
      return socket.end(4401, "token expired")
    }
    const plain = /^\/v1\/docs\/([^/]+)\/sync$/.exec(url.pathname)?.[1]
    // The real one answers 400 to the handshake, and all that a client sees of it is this.
    if (plain && !isValidDocumentId(plain)) return socket.end(1006)
    this.#clients.set(socket, { extended: false, syncStates: new Map(), last: new Map(), toldDeleted: new Set(), ...(plain ? { plain } : {}) })
  }

  gone(socket: FakeSocket): void {
    this.#clients.delete(socket)
  }

  receive(socket: FakeSocket, data: Uint8Array | string): void {
    const client = this.#clients.get(socket)
    if (!client) return
    if (typeof data === "string") return this.#receiveText(socket, client, JSON.parse(data))
    if (client.plain) return this.#commit(socket, () => this.#sync(socket, client.plain!, data))
    const message = cbor.decode<any>(data)
    if (message.type === "join") {
      client.peerId = message.senderId
      client.extended = this.extended && message.peerMetadata.highwater === 1
      const peerMetadata = { storageId: this.storageId, isEphemeral: false, ...(this.extended ? { highwater: 1 } : {}) }
      return this.#send(socket, { type: "peer", peerMetadata, selectedProtocolVersion: "1" })
    }
    if (message.type === "highwater-have") {
      const answer = this.#have(message.documentId, message.hashes)
      this.#refuseDeleted(socket, message.documentId, answer.missing)
      return this.#send(socket, { type: "highwater-durable", documentId: message.documentId, query: message.query, ...answer })
    }
    if (message.type === "sync" || message.type === "request") {
      this.#commit(socket, () => this.#sync(socket, message.documentId, message.data))
    }
  }

  /** The server's HTTP side, for one line. */
  fetch(line: Line): FetchLike {
    return async (url, { body }) => {
      const bytes = body as Uint8Array
      this.requests.push({ url, body: bytes })
      if (line.mode !== "up" || this.httpStatus !== 200) return { ok: false, status: this.httpStatus, json: async () => ({}) }
      const documentId = /docs\/([^/]+)\/changes/.exec(url)![1]!
      if (!isValidDocumentId(documentId)) return { ok: false, status: 400, json: async () => ({}) }
      if (this.#deleted.has(documentId)) return { ok: false, status: 410, json: async () => ({}) }
      const rejected: Array<{ hash: string; reason: string }> = []
      const changes = this.#admit(splitChunks(bytes), rejected)
      const [doc] = A.applyChanges(this.documents.get(documentId) ?? A.init(), changes)
      this.documents.set(documentId, doc)
      const known = this.hashes(documentId)
      const hashes = changes.map(change => A.decodeChange(change).hash)
      const durable = hashes.filter(hash => known.has(hash))
      return { ok: true, status: 200, json: async () => ({ durable, pending: hashes.filter(hash => !known.has(hash)), rejected }) }
    }
  }

  #end(close: (socket: FakeSocket) => void): void {
    this.isRunning = false
    clearTimeout(this.#timer)
    this.#timer = undefined
    for (const socket of this.#clients.keys()) close(socket)
    this.#clients.clear()
    for (const line of this.#lines) if (line.mode === "up") line.mode = "refused"
  }

  #commit(socket: FakeSocket, run: () => void): void {
    this.#queue.push({ socket, run })
    this.#work()
  }

  #work(): void {
    if (this.#timer !== undefined || this.#queue.length === 0) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      // A group commit: all that came in meanwhile.
      for (const { run } of this.#queue.splice(0)) run()
      this.#work()
    }, this.commitMs)
  }

  #sync(socket: FakeSocket, documentId: string, data: Uint8Array): void {
    const client = this.#clients.get(socket)
    const doc = this.documents.get(documentId) ?? A.init()
    const decoded = A.decodeSyncMessage(data)
    if (this.#deleted.has(documentId)) return this.#answerDeleted(socket, documentId, decoded)
    const rejected: Array<{ hash: string; reason: string }> = []
    const changes = this.#admit(decoded.changes, rejected)
    const message = rejected.length > 0 ? A.encodeSyncMessage({ ...decoded, changes }) : data
    const [after, syncState] = A.receiveSyncMessage(doc, client?.syncStates.get(documentId) ?? A.initSyncState(), message)
    this.documents.set(documentId, after)
    client?.syncStates.set(documentId, syncState)
    if (client && rejected.length > 0) this.#sendRejected(socket, client, documentId, rejected)
    for (const [other, { syncStates }] of this.#clients) if (syncStates.has(documentId)) this.#answer(other, documentId)
  }

  #answer(socket: FakeSocket, documentId: string): void {
    const client = this.#clients.get(socket)!
    const [syncState, data] = A.generateSyncMessage(this.documents.get(documentId)!, client.syncStates.get(documentId)!)
    client.syncStates.set(documentId, syncState)
    if (!data) return
    // As the server: what repeats the last message is not said. Where a change was refused, both sides would answer each other for ever.
    const text = String(data)
    if (client.last.get(documentId) === text) return
    client.last.set(documentId, text)
    for (const part of this.#inParts(data)) {
      if (client.plain) socket.deliver(part)
      else this.#send(socket, { type: "sync", documentId, data: part })
    }
  }

  /** All of them have the heads of the whole. */
  #inParts(data: A.SyncMessage): A.SyncMessage[] {
    const decoded = A.decodeSyncMessage(data)
    const changes = this.#admit(decoded.changes, [])
    if (changes.length <= this.changesMax) return [data]
    const starts = changes.map((_, at) => at).filter(at => at % this.changesMax === 0)
    return starts.map(at => A.encodeSyncMessage({ ...decoded, changes: changes.slice(at, at + this.changesMax) }))
  }

  #sendRejected(socket: FakeSocket, client: Client, documentId: string, rejected: object[]): void {
    if (client.plain) socket.deliver(JSON.stringify({ rejected }))
    else if (client.extended) this.#send(socket, { type: "highwater-rejected", documentId, rejected })
  }

  #receiveText(socket: FakeSocket, client: Client, { have, query }: { have: string[]; query: number }): void {
    const answer = this.#have(client.plain!, have)
    this.#refuseDeleted(socket, client.plain!, answer.missing)
    socket.deliver(JSON.stringify({ ...answer, query }))
  }

  #answerDeleted(socket: FakeSocket, documentId: string, { heads, changes }: A.DecodedSyncMessage): void {
    const client = this.#clients.get(socket)
    this.#refuseDeleted(socket, documentId, changes.flatMap(splitChunks).map(change => A.decodeChange(change).hash))
    if (!client || client.toldDeleted.has(documentId)) return
    this.#tellDeleted(socket, documentId)
    this.#refuseDeleted(socket, documentId, heads)
  }

  #tellDeleted(socket: FakeSocket, documentId: string): void {
    const client = this.#clients.get(socket)!
    client.toldDeleted.add(documentId)
    if (client.plain) socket.deliver(JSON.stringify({ deleted: true }))
    else this.#send(socket, { type: "doc-unavailable", documentId })
  }

  /** What whoever sends or asks about changes of a deleted document is told. */
  #refuseDeleted(socket: FakeSocket, documentId: string, hashes: readonly string[]): void {
    const client = this.#clients.get(socket)
    if (!client || !this.#deleted.has(documentId) || hashes.length === 0) return
    this.#sendRejected(socket, client, documentId, hashes.map(hash => ({ hash, reason: "the document was deleted" })))
  }

  #have(documentId: string, hashes: string[]) {
    const known = this.hashes(documentId)
    return { durable: hashes.filter(hash => known.has(hash)), missing: hashes.filter(hash => !known.has(hash)) }
  }

  #admit(chunks: Uint8Array[], rejected: Array<{ hash: string; reason: string }>): Uint8Array[] {
    // One entry may hold several chunks. A whole document in one chunk has type 0.
    const changes = chunks.flatMap(splitChunks).flatMap(chunk => (chunk[8] === 0 ? A.getAllChanges(A.load(chunk)) : [chunk]))
    return changes.filter(chunk => {
      const change = A.decodeChange(chunk)
      if (!this.refuses(change)) return true
      rejected.push({ hash: change.hash, reason: "refused by the test" })
      return false
    })
  }

  #send(socket: FakeSocket, message: object): void {
    const client = this.#clients.get(socket)
    socket.deliver(cbor.encode({ senderId: "server", targetId: client?.peerId, ...message }))
  }

  /** What a client has been told is durable, with all below it as the server has it. */
  #noteTold(line: Line, socket: FakeSocket, data: Uint8Array | string): void {
    const plain = /docs\/([^/]+)\/sync/.exec(socket.url)?.[1]
    if (typeof data === "string") return this.#tell(line, plain!, JSON.parse(data).durable ?? [])
    if (plain) return this.#tell(line, plain, A.decodeSyncMessage(data).heads)
    const message = cbor.decode<any>(data)
    if (message.type === "sync") this.#tell(line, message.documentId, A.decodeSyncMessage(message.data).heads)
    if (message.type === "highwater-durable") this.#tell(line, message.documentId, message.durable)
  }

  #tell(line: Line, documentId: string, hashes: string[]): void {
    const told = this.told.get(line)!
    if (!told.has(documentId)) told.set(documentId, new Set())
    for (const hash of hashes) told.get(documentId)!.add(hash)
  }
}

function copyOf(documents: ReadonlyMap<string, A.Doc<unknown>>): Map<string, A.Doc<unknown>> {
  return new Map([...documents].map(([id, doc]) => [id, A.clone(doc)]))
}
