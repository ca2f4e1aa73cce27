import * as A from "@automerge/automerge/slim"
import { Connection, type ConnectionOptions, type ConnectionState } from "../core/connection.js"
import { closeWhenSaved, disconnected } from "../core/closing.js"
import { documentIdIn } from "../core/document-id.js"
import { environmentOf, type Environment } from "../core/environment.js"
import { DELETED, type ConnectionStoppedError } from "../core/errors.js"
import { HASHES_MAX, hasChange, type Change } from "../core/changes.js"
import { documentUrl } from "../core/http.js"
import { Listeners } from "../core/listeners.js"
import { Outbox, type OutboxStore } from "../core/outbox.js"
import { followPage, PartingPost } from "../core/page.js"
import { Post } from "../core/post.js"
import type { SaveStatus, SaveStatusSource, Timers } from "../core/save-status.js"
import { SaveTracker } from "../core/save-tracker.js"
import { rememberToken } from "../core/token.js"
import type { WaitOptions } from "../core/waiters.js"
import { Questions, type TextFromServer } from "./questions.js"

/** Settings of {@link openDocument}. None is needed. */
export interface OpenDocumentOptions<T> extends ConnectionOptions {
  /** What is there already, from the application's own storage. Default: an empty document. */
  initial?: A.Doc<T>
  /** Give up opening after so many milliseconds. Default: go on until it is there. */
  timeout?: number
  /** Where unsaved changes are kept on this device. Default: only in memory. Documents may share a store. */
  outbox?: OutboxStore
  /** Ask before the tab is closed while changes are not on the server. Default false. */
  warnOnUnload?: boolean
  /** Stand-ins for clock, sockets and the rest, for tests and unusual hosts. */
  environment?: Partial<Environment>
}

/** What a {@link PlainDocument} tells its listeners. */
export interface PlainDocumentEvents<T> {
  /** The document is this one now, by a change made here or received. */
  change: (doc: A.Doc<T>) => void
  /** The save status may have changed. */
  status: (status: SaveStatus) => void
  /** The connection is in another state. */
  connection: (state: ConnectionState) => void
}

const SUBPROTOCOL = "automerge-sync.v1"

/**
 * Opens a document, without automerge-repo. Resolves when the server has sent what it has.
 *
 * ```ts
 * const doc = await openDocument<{ title: string }>("wss://sync.example.org", "4NMNnkMhL8jXrdJ9jamS58PAVdXu")
 * doc.change(d => { d.title = "Hello" })
 * await doc.whenSaved()
 * ```
 *
 * {@link newDocumentId} makes the id of a new document; a document's url from automerge-repo will do, too.
 * To open a document offline, hand in `initial` and use {@link PlainDocument} at once, with `new`.
 */
export async function openDocument<T>(
  url: string,
  documentId: string,
  options: OpenDocumentOptions<T> = {}
): Promise<PlainDocument<T>> {
  const document = new PlainDocument<T>(url, documentId, options)
  try {
    await document.whenSynced({ timeout: options.timeout })
    return document
  } catch (error) {
    document.disconnect()
    throw error
  }
}

/** An Automerge document that is kept in step with a server. */
export class PlainDocument<T> implements SaveStatusSource {
  /** The id under which the server has it. */
  readonly documentId: string
  readonly #environment: Environment
  readonly #tracker: SaveTracker
  readonly #connection: Connection
  readonly #questions: Questions
  readonly #post: Post
  readonly #outbox: Outbox | undefined
  readonly #synced = new Listeners<[error?: unknown]>()
  readonly #listeners: { [E in keyof PlainDocumentEvents<T>]: Listeners<Parameters<PlainDocumentEvents<T>[E]>> } = {
    change: new Listeners(),
    status: new Listeners(),
    connection: new Listeners(),
  }
  readonly #undo: Array<() => void> = []
  #doc: A.Doc<T>
  #syncState = A.initSyncState()
  #isSynced = false
  #isSending = false
  /** Why nothing will come any more, if the application or the server has said so. */
  #ended: Error | undefined

  constructor(url: string, documentId: string, options: OpenDocumentOptions<T> = {}) {
    this.documentId = documentIdIn(documentId)
    this.#environment = environmentOf(options.environment)
    this.#doc = options.initial ?? A.init<T>()
    this.#tracker = new SaveTracker(this.#environment)
    // The application has some perhaps, and nobody here can know what is in it.
    this.#tracker.hasStorage = false
    const token = rememberToken(options.token)
    this.#connection = new Connection(
      documentUrl(url, this.documentId, "sync").href,
      {
        onSocketOpen: () => this.#onSocketOpen(),
        onMessage: data => this.#receive(data),
        onStateChange: state => this.#onStateChange(state),
        ping: () => this.#questions.ping(this.#unanswered.slice(-HASHES_MAX)),
        isOwing: () => this.#unanswered.length > 0,
      },
      { ...options, token: token.token },
      this.#environment,
      [SUBPROTOCOL]
    )
    this.#questions = new Questions(text => this.#connection.send(text))
    this.#outbox = this.#openOutbox(options.outbox)
    this.#tracker.document(this.documentId)
    this.#tracker.update(this.documentId, this.#doc)
    this.#tracker.onOwed = () => this.#sendSoon()
    this.#tracker.onSaveStatus(() => this.#listeners.status.notify(this.saveStatus()))
    this.#post = new Post(url, this.#tracker, this.#environment, token.last)
    const parting = new PartingPost(this.#tracker, this.#post)
    this.#undo.push(
      followPage(this.#environment, this.#tracker, { warnOnUnload: options.warnOnUnload ?? false }, {
        onHidden: () => {
          this.#outbox?.hurry()
          parting.post()
        },
        onAwake: () => this.#connection.wake(),
        onSuspend: () => this.#connection.end(),
        onResume: () => this.#connection.start(),
      })
    )
    this.#connection.start()
  }

  /** The document as it is now. */
  get doc(): A.Doc<T> {
    return this.#doc
  }

  /** Where the connection stands. */
  get state(): ConnectionState {
    return this.#connection.state
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

  /** Changes the document. The change is on its way before this returns to the event loop. */
  change(callback: A.ChangeFn<T>, options: A.ChangeOptions<T> = {}): A.Doc<T> {
    this.#become(A.change(this.#doc, options, callback))
    return this.#doc
  }

  /** Calls back on an event. Returns its own undo. */
  on<E extends keyof PlainDocumentEvents<T>>(event: E, listener: PlainDocumentEvents<T>[E]): () => void {
    // One that changes the document has all hear of a newer one: the others do not hear of this one after it.
    const hear = (value: any) => {
      if (event !== "change" || value === this.#doc) (listener as (value: any) => void)(value)
    }
    return (this.#listeners[event] as Listeners<any>).add(hear)
  }

  /** {@inheritDoc SaveStatusSource.saveStatus} */
  saveStatus(): SaveStatus {
    return this.#tracker.saveStatus(this.documentId)
  }

  /** {@inheritDoc SaveStatusSource.onSaveStatus} */
  onSaveStatus(listener: () => void): () => void {
    return this.#tracker.onSaveStatus(listener)
  }

  /** Resolves when the server has sent all it has, at least once. Rejects if the connection ends for good before. */
  whenSynced({ timeout, signal }: WaitOptions = {}): Promise<void> {
    if (this.#isSynced) return Promise.resolve()
    return new Promise((resolve, reject) => {
      let timer: unknown
      const end = (error?: unknown) => {
        undo()
        signal?.removeEventListener("abort", abort)
        if (timer !== undefined) this.#environment.clearTimeout(timer)
        if (error === undefined) resolve()
        else reject(error)
      }
      const undo = this.#synced.add(end)
      const abort = () => end(signal!.reason)
      if (signal?.aborted) return abort()
      const stopped = this.error ?? this.#ended
      if (stopped) return end(stopped)
      signal?.addEventListener("abort", abort)
      const late = () => end(new Error(`the server has not sent the document within ${timeout} ms; is it reachable?`))
      if (timeout !== undefined) timer = this.#environment.setTimeout(late, timeout)
    })
  }

  /**
   * Resolves when every change made until now is durable on the server. Rejects with `UnsavedChangesError` when
   * the server refuses one, when the connection ends for good, or after `timeout`.
   */
  whenSaved(options: WaitOptions = {}): Promise<void> {
    return this.#tracker.whenSaved([this.documentId], options)
  }

  /**
   * Takes the changes that the server has refused, and those that build on them, out of the outbox, and returns them.
   * This document itself keeps them, and stays `rejected`; handed in as `initial` it sends them again.
   */
  discardRejected(): readonly Change[] {
    return this.#tracker.discardRejected(this.documentId)
  }

  /** Asks the server whether it has this change. Rejects if there is no connection, or it ends before the answer. */
  isSaved(hash: string): Promise<boolean> {
    if (this.#connection.state !== "open") return Promise.reject(new Error("not connected: try again when the state is open"))
    return this.#questions.ask(hash)
  }

  /**
   * Waits until every change is durable on the server, also those that are made meanwhile, over reconnects if need
   * be, and closes the connection. If that does not happen within `timeout` (default 10 s) it rejects with `UnsavedChangesError` and goes on
   * as before: call `close()` again, or give up with {@link disconnect}.
   */
  close(options: WaitOptions = {}): Promise<void> {
    const parts = { environment: this.#environment, tracker: this.#tracker, outbox: this.#outbox }
    const flush = (options: WaitOptions) => {
      this.#connection.hurry()
      return this.#tracker.whenAllSaved(options)
    }
    return closeWhenSaved({ ...parts, flush, end: () => this.disconnect() }, options)
  }

  /** Closes the connection without waiting for anything. What is not on the server stays in `doc` and the outbox. */
  disconnect(): void {
    for (const undo of this.#undo.splice(0)) undo()
    this.#connection.end()
    this.#tracker.stop(disconnected())
    this.#endWaiting(disconnected())
  }

  #onSocketOpen(): void {
    this.#syncState = A.initSyncState()
    this.#tracker.connected(undefined)
    this.#connection.ready()
    this.#send()
  }

  #receive(data: Uint8Array | string): void {
    try {
      if (typeof data === "string") this.#receiveText(data)
      else this.#receiveSync(data)
    } catch (error) {
      // What was in it is missing now, and only a new connection starts afresh.
      console.warn("highwater: the server sent a frame that cannot be read, connecting anew:", error)
      this.#connection.drop()
    }
  }

  #receiveSync(data: Uint8Array): void {
    const decoded = A.decodeSyncMessage(data)
    // First: so the changes in the message are known to be durable when they arrive.
    this.#tracker.serverHas(this.documentId, decoded)
    const [doc, syncState] = A.receiveSyncMessage(this.#doc, this.#syncState, data)
    this.#syncState = syncState
    this.#become(doc)
    this.#send()
    if (this.#isSynced || !decoded.heads.every(hash => hasChange(doc, hash))) return
    this.#isSynced = true
    this.#synced.notify()
  }

  #receiveText(text: string): void {
    const message = JSON.parse(text) as TextFromServer
    const { durable, missing = [] } = message
    if (durable) {
      this.#tracker.markDurable(this.documentId, durable, missing)
      this.#questions.answer(message)
      this.#post.missed(this.documentId, missing)
    }
    if (message.rejected) this.#tracker.reject(this.documentId, message.rejected)
    if (message.deleted) this.#onDeleted()
  }

  #onDeleted(): void {
    this.#tracker.markGone(this.documentId)
    this.#endWaiting(new Error(`${DELETED} on the server`))
  }

  #endWaiting(reason: Error): void {
    this.#ended = reason
    this.#synced.notify(reason)
  }

  get #unanswered(): string[] {
    return this.#tracker.document(this.documentId).unanswered
  }

  #become(doc: A.Doc<T>): void {
    const before = A.getHeads(this.#doc)
    const isSame = before.length === A.getHeads(doc).length && A.getHeads(doc).every(hash => before.includes(hash))
    this.#doc = doc
    if (isSame) return
    this.#tracker.update(this.documentId, doc)
    this.#listeners.change.notify(doc)
  }

  /** One turn later: changes made together go together. */
  #sendSoon(): void {
    if (this.#isSending) return
    this.#isSending = true
    void Promise.resolve().then(() => {
      this.#isSending = false
      this.#send()
    })
  }

  #send(): void {
    if (this.#connection.state !== "open") return
    const [syncState, message] = A.generateSyncMessage(this.#doc, this.#syncState)
    this.#syncState = syncState
    if (message) this.#connection.send(message)
  }

  #onStateChange(state: ConnectionState): void {
    this.#tracker.isConnected = state === "open"
    if (state !== "open") this.#questions.forget()
    if (state === "connecting") this.#tracker.restart()
    if (state === "stopped") {
      this.#tracker.stop(this.#connection.error)
      this.#synced.notify(this.#connection.error)
    }
    this.#listeners.connection.notify(state)
  }

  #openOutbox(store: OutboxStore | undefined): Outbox | undefined {
    if (!store) return undefined
    const self = Math.random().toString(36).slice(2)
    const outbox = new Outbox(store, this.#environment, self, () => this.#tracker.changed())
    this.#tracker.outbox = outbox
    this.#tracker.isReady = false
    void this.#readOutbox(outbox)
    return outbox
  }

  /** Takes up what an earlier session has left of this document. */
  async #readOutbox(outbox: Outbox): Promise<void> {
    const { documentId } = this
    const ended = new AbortController()
    this.#undo.push(() => ended.abort())
    const contents = await outbox.load(ended.signal)
    if (!contents) return
    const owed = contents.changes.filter(change => change.documentId === documentId)
    this.#tracker.remember(contents, owed)
    this.#takeUp(owed)
    this.#tracker.isReady = true
    this.#tracker.changed()
    this.#sendSoon()
  }
  #takeUp(owed: readonly Change[]): void {
    if (owed.length === 0) return
    try {
      this.#become(A.applyChanges(this.#doc, owed.map(({ bytes }) => bytes))[0])
    } catch (error) {
      console.warn(`highwater: could not apply what the outbox has of ${this.documentId}, which stays unsaved:`, error)
    }
  }
}
