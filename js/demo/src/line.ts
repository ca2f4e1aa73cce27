import type { Environment, FetchLike, WebSocketConstructor, WebSocketLike } from "@highwater/client"

/** `halfOpen`: the socket looks open, and nothing comes through it in either direction. */
export type LineState = "up" | "halfOpen" | "offline"

const CLOSED = 3
const ABNORMAL = 1006

/**
 * The line between the client and its server, with a plug to pull. Real lines fail without telling anybody;
 * these sockets do so when they are asked to.
 */
export class Line {
  #isOffline = false
  readonly #sockets = new Set<LineSocket>()
  readonly #listeners = new Set<() => void>()

  /** What the client is to use in place of the browser's own. */
  readonly environment: Pick<Environment, "WebSocket" | "fetch">

  constructor() {
    const line = this
    class Socket extends LineSocket {
      constructor(url: string, protocols?: string[]) {
        super(line.#isOffline ? undefined : new WebSocket(url, protocols))
        line.#sockets.add(this)
        this.addEventListener("close", () => line.#forget(this))
      }
    }
    const fetchOnLine: FetchLike = (url, init) => {
      if (line.#isOffline) return Promise.reject(new TypeError("offline"))
      return fetch(url, init as RequestInit)
    }
    this.environment = { WebSocket: () => Socket as WebSocketConstructor, fetch: fetchOnLine }
  }

  get state(): LineState {
    if (this.#isOffline) return "offline"
    return [...this.#sockets].some(socket => socket.isSilent) ? "halfOpen" : "up"
  }

  /** The connection breaks. A new one can be made at once. */
  drop(): void {
    for (const socket of [...this.#sockets]) socket.break()
    this.#notify()
  }

  /** From now on the connection swallows everything. Only a new one works. */
  halfOpen(): void {
    for (const socket of this.#sockets) socket.isSilent = true
    this.#notify()
  }

  /** No connection, and none can be made, until {@link goOnline}. */
  goOffline(): void {
    this.#isOffline = true
    this.drop()
  }

  goOnline(): void {
    this.#isOffline = false
    this.#notify()
    // Browsers send this when the network is back, and the client then does not wait for its next attempt.
    window.dispatchEvent(new Event("online"))
  }

  onChange = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  #forget(socket: LineSocket): void {
    this.#sockets.delete(socket)
    this.#notify()
  }

  #notify(): void {
    for (const listener of [...this.#listeners]) listener()
  }
}

/** A WebSocket that can be silenced and broken. Without a real one it never opens. */
class LineSocket extends EventTarget implements WebSocketLike {
  binaryType = "arraybuffer"
  /** Swallows frames in both directions. */
  isSilent = false
  readonly #socket: WebSocket | undefined
  #isBroken = false

  constructor(socket: WebSocket | undefined) {
    super()
    this.#socket = socket
    if (!socket) {
      setTimeout(() => this.break())
      return
    }
    socket.binaryType = "arraybuffer"
    socket.onopen = () => this.#tell(new Event("open"))
    socket.onmessage = ({ data }) => {
      if (!this.isSilent) this.#tell(new MessageEvent("message", { data }))
    }
    socket.onclose = ({ code, reason }) => this.#end(code, reason)
    socket.onerror = () => this.#tell(new Event("error"))
  }

  get readyState(): number {
    return this.#isBroken || !this.#socket ? CLOSED : this.#socket.readyState
  }

  send(data: Uint8Array | string): void {
    if (!this.isSilent && !this.#isBroken) this.#socket?.send(data as Uint8Array<ArrayBuffer> | string)
  }

  close(code?: number, reason?: string): void {
    this.#socket?.close(code, reason)
    // A silent socket would wait for an answer that never comes.
    if (this.isSilent) this.break()
  }

  /**
   * Ends as a broken line does: nobody is told, nothing more gets through. A browser cannot end a socket
   * without a close frame, so the server may see one; the client sees none.
   */
  break(): void {
    this.#end(ABNORMAL, "")
    this.#socket?.close()
  }

  #end(code: number, reason: string): void {
    if (this.#isBroken) return
    this.#tell(new CloseEvent("close", { code, reason }))
    this.#isBroken = true
  }

  #tell(event: Event): void {
    if (!this.#isBroken) this.dispatchEvent(event)
  }
}
