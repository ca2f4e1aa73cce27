import * as A from "@automerge/automerge/slim"
import {
  NetworkAdapter,
  cbor,
  type DocHandle,
  type Message,
  type PeerId,
  type PeerMetadata,
  type Repo,
} from "@automerge/automerge-repo/slim"
import { Connection, type ConnectionOptions, type ConnectionState } from "../core/connection.js"
import { HASHES_MAX, type Change } from "../core/changes.js"
import { closeWhenSaved, disconnected } from "../core/closing.js"
import { environmentOf, type Environment } from "../core/environment.js"
import type { ConnectionStoppedError } from "../core/errors.js"
import { IndexedDBStore } from "../core/indexeddb-store.js"
import { Listeners } from "../core/listeners.js"
import { Outbox, type OutboxStore } from "../core/outbox.js"
import { followPage, PartingPost } from "../core/page.js"
import { Post } from "../core/post.js"
import type { SaveStatus, SaveStatusSource, Timers } from "../core/save-status.js"
import { SaveTracker } from "../core/save-tracker.js"
import { rememberToken } from "../core/token.js"
import type { TrackedDocument } from "../core/tracked-document.js"
import type { WaitOptions } from "../core/waiters.js"
import { Delivery } from "./delivery.js"
import {
  EXTENSION,
  EXTENSION_VERSION,
  type Addressed,
  type DurableMessage,
  type FromServer,
  type PeerMessage,
  type SyncLikeMessage,
} from "./messages.js"
import { Prompter } from "./prompter.js"
import { Recovery } from "./recovery.js"
import { watchRepo } from "./watch-repo.js"

/** Settings of {@link HighwaterClientAdapter}. None is needed. */
export interface HighwaterClientAdapterOptions extends ConnectionOptions {
  /**
   * Where unsaved changes are kept on this device. The default is IndexedDB where there is one, and nothing
   * elsewhere. `false` keeps nothing.
   */
  outbox?: OutboxStore | false
  /**
   * Tells outboxes for the same server apart. If several people use one browser, give each an own name, such as
   * their user id: otherwise the next one to log in sends what the last one left, with their own token.
   */
  outboxName?: string
  /** Ask before the tab is closed while changes are not on the server. Default false. */
  warnOnUnload?: boolean
  /** Stand-ins for clock, sockets and the rest, for tests and unusual hosts. */
  environment?: Partial<Environment>
}

/** A document's handle, or its id. */
export type HandleOrId = DocHandle<any> | string

const READY_MS = 1000
const ASK_MS = 100
/** About so many documents the server is asked at once for a sign of life. */
const ASKED_MAX = 100

/**
 * Connects an automerge-repo `Repo` to a sync server, in place of its WebSocket client adapter. Attached to
 * the repo, it also knows which changes the server has called durable.
 *
 * ```ts
 * const adapter = new HighwaterClientAdapter("wss://sync.example.org")
 * const repo = new Repo({ network: [adapter], storage })
 * adapter.attach(repo)
 * ```
 */
export class HighwaterClientAdapter extends NetworkAdapter implements SaveStatusSource {
  /** Where the server is. */
  readonly url: string
  /** The server's peer id, while there is a connection. */
  remotePeerId: PeerId | undefined

  readonly #environment: Environment
  readonly #options: HighwaterClientAdapterOptions
  readonly #tracker: SaveTracker
  readonly #connection: Connection
  readonly #prompter: Prompter
  readonly #post: Post
  readonly #parting: PartingPost
  readonly #token: ReturnType<typeof rememberToken>
  readonly #stateListeners = new Listeners<[ConnectionState]>()
  readonly #self = Math.random().toString(36).slice(2)
  #outbox: Outbox | undefined
  #recovery: Recovery | undefined
  #delivery: Delivery | undefined
  #repo: Repo | undefined
  #unfollowPage: (() => void) | undefined
  /** Whether the page is put away, and the connection with it. */
  #isSuspended = false
  #isReady = false
  #becomeReady: () => void = () => {}
  readonly #whenReady = new Promise<void>(resolve => (this.#becomeReady = resolve))
  #serverAnswersQuestions = false
  #queries = 0
  #turn = 0
  readonly #askTimers = new Map<string, unknown>()

  constructor(url: string, options: HighwaterClientAdapterOptions = {}) {
    super()
    this.url = url
    this.#options = options
    this.#environment = environmentOf(options.environment)
    this.#tracker = new SaveTracker(this.#environment)
    this.#token = rememberToken(options.token)
    this.#connection = new Connection(
      url,
      {
        onSocketOpen: () => this.#join(),
        onMessage: data => this.#receive(data),
        onStateChange: state => this.#onStateChange(state),
        ping: () => this.#ping(),
        isOwing: () => this.#serverAnswersQuestions && this.#owing.length > 0,
      },
      { ...options, token: this.#token.token },
      this.#environment
    )
    this.#prompter = new Prompter(message => this.emit("message", message as Message))
    this.#post = new Post(url, this.#tracker, this.#environment, this.#token.last)
    this.#parting = new PartingPost(this.#tracker, this.#post)
    this.#tracker.onOwed = documentId => this.#sendSoon(documentId)
  }

  /** Where the connection stands. */
  get state(): ConnectionState {
    return this.#connection.state
  }

  /** Calls back whenever {@link state} has become another one. Returns its own undo. */
  onStateChange(listener: (state: ConnectionState) => void): () => void {
    return this.#stateListeners.add(listener)
  }

  /** Why the connection has ended for good, if it has. */
  get error(): ConnectionStoppedError | undefined {
    return this.#connection.error
  }

  /** {@inheritDoc SaveStatusSource.timers} */
  get timers(): Timers {
    return this.#environment
  }

  /** Why the outbox cannot be read or written, as long as that is so. It is tried again and again. */
  get outboxError(): unknown {
    return this.#outbox?.readError ?? this.#outbox?.error
  }

  /** Follows the documents of this repo, so that their save status is known. Call it right after making the repo. */
  attach(repo: Repo): this {
    if (this.#repo) throw new Error("this adapter is attached to a repo already; make one adapter for each repo")
    this.#repo = repo
    this.#tracker.hasStorage = repo.storageSubsystem !== undefined
    const delivery = new Delivery({ repo, tracker: this.#tracker, post: this.#post })
    this.#delivery = delivery
    this.#tracker.onLacking = documentId => void delivery.deliver(documentId)
    this.#openOutbox()
    watchRepo(repo, {
      onDocument: (handle, doc, isImported) => this.#tracker.update(handle.documentId, doc, isImported),
      onDeleted: documentId => this.#tracker.forget(documentId),
    })
    this.#followPage()
    return this
  }

  /** {@inheritDoc SaveStatusSource.saveStatus} */
  saveStatus(document?: HandleOrId): SaveStatus {
    this.#mustBeAttached()
    return this.#tracker.saveStatus(document === undefined ? undefined : idOf(document))
  }

  /** {@inheritDoc SaveStatusSource.onSaveStatus} */
  onSaveStatus(listener: () => void): () => void {
    return this.#tracker.onSaveStatus(listener)
  }

  /**
   * Resolves when every change that the document has now is durable on the server. Rejects with
   * `UnsavedChangesError` when the server refuses one, when the connection ends for good, or after `timeout`.
   */
  async whenSaved(document: HandleOrId, options: WaitOptions = {}): Promise<void> {
    this.#mustBeAttached()
    await this.#tracker.whenSaved([idOf(document)], options)
  }

  /**
   * Takes the document's changes that the server has refused, and those that build on them, out of the outbox, and
   * returns them. The document itself keeps them, and stays `rejected`; so does the repo's storage, and a later session
   * that opens the document from there sends them again and is refused again.
   */
  discardRejected(document: HandleOrId): readonly Change[] {
    this.#mustBeAttached()
    return this.#tracker.discardRejected(idOf(document))
  }

  /** Sends everything now, and resolves when all documents are saved. Rejects as {@link whenSaved}. */
  async flush(options: WaitOptions = {}): Promise<void> {
    this.#mustBeAttached()
    this.#connection.hurry()
    for (const { documentId } of this.#tracker.unsaved()) this.#sendSoon(documentId)
    await this.#tracker.whenAllSaved(options)
  }

  /**
   * Waits until everything is durable on the server, also what is changed meanwhile, over reconnects if need be,
   * and closes the connection. If that does not happen within `timeout` (default 10 s) it rejects with `UnsavedChangesError`, which
   * lists what is missing. Then all of it is still in the outbox, and the adapter goes on as before: call
   * `close()` again, or give up with {@link disconnect}.
   */
  close(options: WaitOptions = {}): Promise<void> {
    const parts = { environment: this.#environment, tracker: this.#tracker, outbox: this.#outbox }
    const flush = (options: WaitOptions) => this.flush(options)
    return closeWhenSaved({ ...parts, flush, end: () => this.#end() }, options)
  }

  /** The repo is still watched: what is typed from now on is in the outbox, and is not called saved. */
  #end(): void {
    this.disconnect()
    this.#unfollowPage?.()
    this.#unfollowPage = undefined
  }

  /** @hidden For the repo. */
  override isReady(): boolean {
    return this.#isReady
  }

  /** @hidden For the repo. */
  override whenReady(): Promise<void> {
    return this.#whenReady
  }

  /** @hidden For the repo: connects. */
  override connect(peerId: PeerId, peerMetadata: PeerMetadata = {}): void {
    this.peerId = peerId
    this.peerMetadata = peerMetadata
    // A repo waits for this before it says that a document is unavailable; offline it must not wait long.
    this.#environment.setTimeout(() => this.#setReady(), READY_MS)
    this.#followPage()
    this.#recover()
    this.#connection.start()
  }

  /**
   * Closes the connection without waiting for anything, also for those who wait. Another tab may send what is in the
   * outbox. The page is still followed: it asks before it is closed with something unsaved, and hurries the outbox.
   * `connect` opens it again.
   */
  override disconnect(): void {
    this.#connection.end()
    this.#recovery?.end()
    this.#recovery = undefined
    this.#tracker.stop(disconnected())
  }

  /** @hidden For the repo: sends a message. */
  override send(message: Message): void {
    if (this.#connection.state !== "open") return
    // Without waiting for the outbox: if the page is killed now, one of the two ways may get a change out of it.
    this.#sendNow(message)
  }

  #sendNow(message: object): boolean {
    return this.#connection.send(cbor.encode(message))
  }

  #join(): void {
    this.#sendNow({
      type: "join",
      senderId: this.peerId,
      peerMetadata: { ...this.peerMetadata, [EXTENSION]: EXTENSION_VERSION },
      supportedProtocolVersions: ["1"],
    })
  }

  #receive(data: Uint8Array | string): void {
    let message: FromServer
    try {
      message = cbor.decode(data as Uint8Array)
    } catch (error) {
      console.warn("highwater: the server sent a frame that is no message:", error)
      return
    }
    switch (message?.type) {
      case "peer":
        return this.#welcome(message)
      case "error":
        return this.#connection.explain(message.message)
      case "highwater-rejected":
        return this.#tracker.reject(message.documentId, message.rejected)
      case "highwater-durable":
        return this.#hear(message)
      case "doc-unavailable":
        this.#askWhy(message)
        break
      case "sync":
        this.#noteHeads(message)
    }
    this.emit("message", message as unknown as Message)
  }

  #welcome({ senderId, peerMetadata = {} }: PeerMessage): void {
    this.remotePeerId = senderId
    this.#serverAnswersQuestions = (peerMetadata[EXTENSION] ?? 0) >= EXTENSION_VERSION
    // A server that cannot be asked speaks only of what is open here.
    this.#tracker.connected(peerMetadata.storageId, id => this.#serverAnswersQuestions || this.#delivery?.isOpen(id) === true)
    this.#connection.ready()
    this.#setReady()
    this.emit("peer-candidate", { peerId: senderId, peerMetadata })
    this.#delivery?.retry()
    for (const { documentId, undecided } of this.#tracker.documents) if (undecided.length > 0) this.#askSoon(documentId)
  }

  #hear({ documentId, durable, missing }: DurableMessage): void {
    this.#tracker.markDurable(documentId, durable, missing)
    if (missing.length > 0) this.#delivery?.look(documentId)
    this.#post.missed(documentId, missing)
  }

  /** That it was deleted is said only of changes that are asked about. */
  #askWhy({ documentId }: Addressed): void {
    const { tips } = this.#tracker.document(documentId)
    if (this.#serverAnswersQuestions && tips.length > 0) this.#ask(documentId, tips)
  }

  /** Before the repo sees the message: so the changes in it are known to be durable when they arrive. */
  #noteHeads(message: SyncLikeMessage): void {
    const { documentId, data } = message
    let decoded: A.DecodedSyncMessage
    try {
      decoded = A.decodeSyncMessage(data)
    } catch {
      return
    }
    this.#tracker.serverHas(documentId, decoded)
    this.#prompter.heard(message, decoded)
    const { pending, undecided } = this.#tracker.document(documentId)
    if (pending.size > 0) this.#delivery?.look(documentId)
    if (undecided.length > 0) this.#askSoon(documentId)
  }

  /** Asks the server by name, if its heads have not settled the matter shortly after they came. */
  #askSoon(documentId: string): void {
    if (!this.#serverAnswersQuestions || this.#askTimers.has(documentId)) return
    const ask = () => {
      this.#askTimers.delete(documentId)
      const hashes = this.#tracker.document(documentId).undecided
      if (hashes.length > 0) this.#ask(documentId, hashes)
    }
    this.#askTimers.set(documentId, this.#environment.setTimeout(ask, ASK_MS))
  }

  #ask(documentId: string, hashes: readonly string[]): boolean {
    const { peerId: senderId, remotePeerId: targetId } = this
    // The newest first: if the server has one it has all below it.
    const newest = hashes.slice(-HASHES_MAX)
    return this.#sendNow({ type: "highwater-have", senderId, targetId, documentId, query: ++this.#queries, hashes: newest })
  }

  /** Questions that the server answers, about what is owed if anything is. */
  #ping(): boolean {
    // A server without extensions cannot be asked; but while something is owed, its acknowledgement is due.
    if (!this.#serverAnswersQuestions) return this.#tracker.isHopeful
    const owing = this.#owing
    if (owing.length > 0) return this.#inTurn(owing).every(({ documentId, unanswered }) => this.#ask(documentId, unanswered))
    const any = [...this.#tracker.documents].find(({ heads }) => heads.length > 0)
    return any !== undefined && this.#ask(any.documentId, [])
  }

  get #owing(): TrackedDocument[] {
    return [...this.#tracker.documents].filter(({ unanswered }) => unanswered.length > 0)
  }

  /** So many of them as are asked about at once; the next ones next time. */
  #inTurn(documents: readonly TrackedDocument[]): TrackedDocument[] {
    const start = documents.length > ASKED_MAX ? this.#turn % documents.length : 0
    this.#turn = start + ASKED_MAX
    return [...documents.slice(start), ...documents.slice(0, start)].slice(0, ASKED_MAX)
  }

  /** Has the repo send what is new in this document, without the pause that it would make itself. */
  #sendSoon(documentId: string): void {
    const { peerId, remotePeerId } = this
    if (peerId && remotePeerId) void this.#prompter.prompt(documentId)
  }

  #onStateChange(state: ConnectionState): void {
    const { remotePeerId } = this
    if (state !== "open" && remotePeerId) {
      this.remotePeerId = undefined
      this.#serverAnswersQuestions = false
      this.#prompter.forget()
      for (const timer of this.#askTimers.values()) this.#environment.clearTimeout(timer)
      this.#askTimers.clear()
      this.emit("peer-disconnected", { peerId: remotePeerId })
    }
    this.#tracker.isConnected = state === "open"
    if (state === "connecting") this.#tracker.restart()
    if (state === "stopped") this.#tracker.stop(this.#connection.error)
    this.#stateListeners.notify(state)
  }

  #openOutbox(): void {
    const store = this.#options.outbox ?? defaultStore(outboxName(this.url, this.#options.outboxName), this.#environment)
    if (!store) return
    const outbox = new Outbox(store, this.#environment, this.#self, () => this.#tracker.changed())
    this.#outbox = outbox
    this.#tracker.outbox = outbox
    this.#tracker.isReady = false
    this.#recover()
  }

  /** From here until the end, this tab takes part in sending what others leave. */
  #recover(): void {
    const [delivery, outbox] = [this.#delivery, this.#outbox]
    if (!delivery || !outbox || this.#recovery) return
    const name = outboxName(this.url, this.#options.outboxName)
    const parts = { tracker: this.#tracker, outbox, delivery, environment: this.#environment, name, self: this.#self }
    this.#recovery = new Recovery(parts)
    void this.#recovery.start()
  }

  #followPage(): void {
    if (!this.#repo || this.#unfollowPage) return
    const { warnOnUnload = false } = this.#options
    this.#unfollowPage = followPage(this.#environment, this.#tracker, { warnOnUnload }, {
      onHidden: () => {
        this.#outbox?.hurry()
        this.#parting.post()
      },
      onAwake: () => this.#connection.wake(),
      onSuspend: () => {
        this.#isSuspended = this.#connection.state !== "idle"
        this.#connection.end()
      },
      onResume: () => {
        if (this.#isSuspended) this.#connection.start()
      },
    })
  }

  #setReady(): void {
    this.#isReady = true
    this.#becomeReady()
  }

  #mustBeAttached(): void {
    if (!this.#repo) throw new Error("the adapter does not know the repo's documents: call adapter.attach(repo) after new Repo(...)")
  }
}

function idOf(document: HandleOrId): string {
  const id = typeof document === "string" ? document : document.documentId
  return id.replace(/^automerge:/, "").replace(/#.*$/, "")
}

/** Each server has its own outbox: what is owed to one is not owed to another. */
function outboxName(url: string, name?: string): string {
  return `highwater ${url.replace(/[?#].*$/, "")}${name === undefined ? "" : ` ${name}`}`
}

function defaultStore(name: string, { now }: Environment): OutboxStore | undefined {
  return typeof indexedDB === "undefined" ? undefined : new IndexedDBStore(name, indexedDB, now)
}
