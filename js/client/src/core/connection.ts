import { Backoff, type BackoffOptions } from "./backoff.js"
import { afterClose } from "./close-codes.js"
import type { Environment, WebSocketLike } from "./environment.js"
import { ConnectionStoppedError } from "./errors.js"
import { resolveToken, withToken, type Token } from "./token.js"

/**
 * `idle`: not started, or ended by the application. `connecting`: no handshake yet. `open`: messages flow.
 * `waiting`: until the next attempt. `stopped`: ended for good, see {@link Connection.error}.
 */
export type ConnectionState = "idle" | "connecting" | "open" | "waiting" | "stopped"

/** How a connection is made and watched. Times are in milliseconds. */
export interface ConnectionOptions {
  /** Lets the client in. Sent as the query parameter `token`. */
  token?: Token | undefined
  /** Pauses between attempts. */
  backoff?: BackoffOptions | undefined
  /** After so much silence the server is asked for a sign of life. Default 10,000. */
  heartbeatInterval?: number | undefined
  /** A server that stays silent for so long after that is given up. Default 10,000. */
  heartbeatTimeout?: number | undefined
  /** A connection that is not ready after so long is given up. Default 20,000. */
  connectTimeout?: number | undefined
}

/** What the owner of a connection does for it. */
export interface ConnectionHandlers {
  /** The socket is open: say hello. Call {@link Connection.ready} when messages may flow. */
  onSocketOpen(): void
  /** A frame came in. */
  onMessage(data: Uint8Array | string): void
  /** The state is another one now. */
  onStateChange(state: ConnectionState): void
  /** Say something that the server answers. False if there is no such thing; then silence proves nothing. */
  ping(): boolean
  /** Whether a {@link ping} would ask about what is owed. That is due now and then, also while the server speaks of other things. */
  isOwing(): boolean
}

const OPEN = 1
// A connection that lasted for so long was a success. One that ends at once is not: a server that is too busy
// may let clients in and close them again, and they must come back ever more slowly.
const SUCCESS_MS = 5000
// An attempt that is older than this when the network comes back may be on the path that went.
const HANGING_MS = 2000

/** One WebSocket that is made anew whenever it ends, until that is pointless. */
export class Connection {
  readonly #url: string
  readonly #protocols: string[] | undefined
  readonly #options: ConnectionOptions
  readonly #handlers: ConnectionHandlers
  readonly #environment: Environment
  readonly #backoff: Backoff
  #state: ConnectionState = "idle"
  #socket: WebSocketLike | undefined
  /** Counts attempts, so that what an abandoned one still does is noticed and ignored. */
  #attempt = 0
  #timer: unknown
  #error: ConnectionStoppedError | undefined
  #attemptedAt = 0
  #readyAt: number | undefined
  /** When it was last looked whether something is owed. */
  #lookedAt = 0
  #isProbing = false
  #tokenExpired = false
  #serverSaid = ""

  constructor(
    url: string,
    handlers: ConnectionHandlers,
    options: ConnectionOptions,
    environment: Environment,
    protocols?: string[]
  ) {
    this.#url = url
    this.#handlers = handlers
    this.#options = options
    this.#environment = environment
    this.#protocols = protocols
    this.#backoff = new Backoff(options.backoff ?? {}, environment.random)
  }

  /** Where the connection stands. */
  get state(): ConnectionState {
    return this.#state
  }

  /** Why the connection is `stopped`. */
  get error(): ConnectionStoppedError | undefined {
    return this.#error
  }

  /** Starts, also after a stop. Does nothing if it runs. */
  start(): void {
    if (this.#state !== "idle" && this.#state !== "stopped") return
    this.#error = undefined
    this.#backoff.reset()
    void this.#connect()
  }

  /** Ends the connection. Frames handed to {@link send} before are still sent. */
  end(): void {
    this.#abandonSocket(1000)
    this.#setState("idle")
  }

  /** Sends a frame. False if there is no open socket. */
  send(data: Uint8Array | string): boolean {
    if (this.#socket?.readyState !== OPEN) return false
    this.#socket.send(data)
    return true
  }

  /** The handshake is done. */
  ready(): void {
    if (this.#state !== "connecting") return
    this.#readyAt = this.#lookedAt = this.#environment.now()
    this.#tokenExpired = false
    this.#setState("open")
    this.#expectSilence()
  }

  /** Remembers what the server says about a close that it is about to make. */
  explain(message: string): void {
    this.#serverSaid = message
  }

  /** Somebody waits: try at once, or look whether the socket still works. */
  hurry(): void {
    if (this.#state === "waiting") void this.#connect()
    else if (this.#state === "open" && !this.#isProbing) this.#probe()
  }

  /** The network may be back, or another one: as {@link hurry}, and an attempt from before is not waited for. */
  wake(): void {
    const age = this.#environment.now() - this.#attemptedAt
    if (this.#state === "connecting" && age > HANGING_MS) void this.#connect()
    else this.hurry()
  }

  /** Drops the socket and tries again after a pause. */
  drop(): void {
    if (this.#state === "connecting" || this.#state === "open") this.#retry()
  }

  async #connect(): Promise<void> {
    this.#abandonSocket()
    const attempt = ++this.#attempt
    this.#attemptedAt = this.#environment.now()
    this.#setState("connecting")
    // Before the token is asked for: that may hang as well.
    this.#setTimer(() => this.drop(), this.#options.connectTimeout ?? 20_000)
    try {
      const token = await resolveToken(this.#options.token, this.#tokenExpired)
      const WebSocket = await this.#environment.WebSocket()
      if (attempt !== this.#attempt) return
      const url = withToken(this.#url, token)
      this.#adopt(this.#protocols ? new WebSocket(url, this.#protocols) : new WebSocket(url))
    } catch (error) {
      if (attempt !== this.#attempt) return
      console.warn("highwater: could not start a connection, will try again:", error)
      this.drop()
    }
  }

  #adopt(socket: WebSocketLike): void {
    this.#socket = socket
    socket.binaryType = "arraybuffer"
    const mine = (handle: (event: any) => void) => (event: any) => {
      if (this.#socket === socket) handle(event)
    }
    socket.addEventListener("open", mine(() => this.#handlers.onSocketOpen()))
    socket.addEventListener("message", mine(event => this.#receive(event.data)))
    socket.addEventListener("close", mine(event => this.#closed(event.code ?? 1006, String(event.reason ?? ""))))
    // Every error is followed by a close; without a listener Node's sockets would throw.
    socket.addEventListener("error", () => {})
    // The `ws` package shows the server's pings, which are a sign of life that costs nothing.
    const on = (socket as { on?: (type: string, listener: () => void) => void }).on
    if (typeof on === "function") on.call(socket, "ping", mine(() => this.#aliveIfOpen()) as () => void)
  }

  #receive(data: ArrayBuffer | Uint8Array | string): void {
    this.#aliveIfOpen()
    this.#handlers.onMessage(typeof data === "string" ? data : new Uint8Array(data as ArrayBuffer))
  }

  #closed(code: number, reason: string): void {
    const next = afterClose(code, reason)
    if (next.action === "stop") return this.#stop(code, next.advice, reason)
    if (next.action === "refreshToken") {
      if (typeof this.#options.token !== "function") {
        return this.#stop(code, "the token is not valid any more; give the client a function that gets a new one", reason)
      }
      this.#tokenExpired = true
    }
    this.#retry(next.action === "retry" ? next.delay : undefined)
  }

  #stop(code: number, advice: string, reason: string): void {
    this.#error = new ConnectionStoppedError(code, advice, this.#serverSaid || reason)
    this.#abandonSocket()
    this.#setState("stopped")
  }

  #retry(delay?: number): void {
    this.#abandonSocket()
    if (this.#readyAt !== undefined && this.#environment.now() - this.#readyAt >= SUCCESS_MS) this.#backoff.reset()
    this.#readyAt = undefined
    this.#setTimer(() => void this.#connect(), delay ?? this.#backoff.next())
    this.#setState("waiting")
  }

  /** Lets go of the socket, so that nothing it still does has an effect. */
  #abandonSocket(code?: number): void {
    const socket = this.#socket
    this.#attempt += 1
    this.#socket = undefined
    this.#serverSaid = ""
    this.#clearTimer()
    try {
      socket?.close(code)
    } catch {
      // A socket that cannot be closed any more is closed.
    }
  }

  /** A sign of life. Before the handshake the clock for that runs, and nothing stops it. */
  #aliveIfOpen(): void {
    if (this.#state !== "open") return
    const isDue = this.#environment.now() - this.#lookedAt >= this.#silence
    if (isDue) this.#lookedAt = this.#environment.now()
    if (isDue && this.#handlers.isOwing()) this.#probe()
    else this.#expectSilence()
  }

  get #silence(): number {
    return this.#options.heartbeatInterval ?? 10_000
  }

  #expectSilence(): void {
    this.#setTimer(() => this.#probe(), this.#silence)
  }

  #probe(): void {
    // A socket that is closing may never come to its end.
    if (this.#socket?.readyState !== OPEN) return this.drop()
    this.#lookedAt = this.#environment.now()
    if (this.#handlers.ping()) this.#expectAnswer()
    else this.#expectSilence()
  }

  /** It cannot come before the question is out, and that waits behind what was sent before: that may be large, and the path slow. */
  #expectAnswer(): void {
    const waiting = this.#waiting
    const look = () => (this.#waiting < waiting ? this.#expectAnswer() : this.drop())
    this.#setTimer(look, this.#options.heartbeatTimeout ?? 10_000)
    this.#isProbing = true
  }

  /** How many bytes are still to go out. */
  get #waiting(): number {
    return this.#socket?.bufferedAmount ?? 0
  }

  #setTimer(callback: () => void, ms: number): void {
    this.#clearTimer()
    this.#timer = this.#environment.setTimeout(() => {
      this.#timer = undefined
      callback()
    }, ms)
  }

  #clearTimer(): void {
    this.#isProbing = false
    if (this.#timer !== undefined) this.#environment.clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #setState(state: ConnectionState): void {
    if (this.#state === state) return
    this.#state = state
    this.#handlers.onStateChange(state)
  }
}
