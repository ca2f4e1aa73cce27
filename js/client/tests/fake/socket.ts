import type { WebSocketLike } from "../../src/core/environment.js"

type Listener = (event: any) => void

/** Where a socket's far end is: a server that takes part in the test. */
export interface Acceptor {
  accept(socket: FakeSocket): void
  receive(socket: FakeSocket, data: Uint8Array | string): void
  gone(socket: FakeSocket): void
}

/** A client's way to the server, which the test can cut. All times are the fake clock's. */
export class Line {
  readonly acceptor: Acceptor
  readonly latency: number
  /** What new sockets meet: a server, nobody, or nothing at all. */
  mode: "up" | "refused" | "silent" = "up"
  readonly sockets = new Set<FakeSocket>()

  constructor(acceptor: Acceptor, latency = 5) {
    this.acceptor = acceptor
    this.latency = latency
  }

  /** The WebSocket class for this line. */
  get WebSocket() {
    const line = this
    return class extends FakeSocket {
      constructor(url: string, protocols?: string[]) {
        super(line, url, protocols)
      }
    }
  }

  /** Existing sockets go silent without an event, as when a laptop changes its network. */
  cut(): void {
    this.mode = "silent"
    for (const socket of this.sockets) socket.isDead = true
    for (const socket of [...this.sockets]) this.acceptor.gone(socket)
    this.sockets.clear()
  }

  mend(): void {
    this.mode = "up"
  }
}

/** A WebSocket without a network. */
export class FakeSocket implements WebSocketLike {
  binaryType = "blob"
  readyState = 0
  /** Nothing gets through any more, and neither side is told. */
  isDead = false
  readonly #line: Line
  readonly #listeners = new Map<string, Set<Listener>>()
  /** For the test: looks at every frame that reaches the client. */
  onDelivered: (data: Uint8Array | string) => void = () => {}

  constructor(
    line: Line,
    readonly url: string,
    readonly protocols: string[] = []
  ) {
    this.#line = line
    setTimeout(() => this.#open(), line.latency)
  }

  addEventListener(type: string, listener: Listener): void {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set())
    this.#listeners.get(type)!.add(listener)
  }

  removeEventListener(type: string, listener: Listener): void {
    this.#listeners.get(type)?.delete(listener)
  }

  send(data: Uint8Array | string): void {
    if (this.readyState !== 1) throw new Error("not open")
    const copy = typeof data === "string" ? data : new Uint8Array(data)
    setTimeout(() => {
      if (!this.isDead) this.#line.acceptor.receive(this, copy)
    }, this.#line.latency)
  }

  close(): void {
    if (this.readyState >= 2) return
    this.readyState = 2
    setTimeout(() => {
      if (!this.isDead) this.#line.acceptor.gone(this)
      this.#end(1000, "")
    }, this.#line.latency)
  }

  /** For the server: sends to the client. */
  deliver(data: Uint8Array | string): void {
    const copy = typeof data === "string" ? data : new Uint8Array(data).buffer
    setTimeout(() => {
      if (this.isDead || this.readyState !== 1) return
      this.onDelivered(typeof copy === "string" ? copy : new Uint8Array(copy))
      this.#emit("message", { data: copy })
    }, this.#line.latency)
  }

  /** For the server: closes. */
  end(code: number, reason = ""): void {
    setTimeout(() => {
      if (!this.isDead) this.#end(code, reason)
    }, this.#line.latency)
  }

  #open(): void {
    if (this.readyState !== 0) return
    if (this.#line.mode === "silent") return
    if (this.#line.mode === "refused") return this.#end(1006, "")
    this.readyState = 1
    this.#line.sockets.add(this)
    this.#line.acceptor.accept(this)
    this.#emit("open", {})
  }

  #end(code: number, reason: string): void {
    if (this.readyState === 3) return
    this.readyState = 3
    this.#line.sockets.delete(this)
    this.#emit("close", { code, reason })
  }

  #emit(type: string, event: object): void {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) listener(event)
  }
}
