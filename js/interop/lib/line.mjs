// A network line that a test can cut and mend: a TCP forwarder with a client on one side and the
// server on the other.
//
// A cut line is like a laptop lid: what was connected is gone, and a new attempt neither fails nor
// succeeds until the line is mended. The same happens by itself while the server is down. So the
// client under test never meets a refused connection, which several releases answer by ending the
// process, and a test needs no retry timers.

import { once } from "node:events"
import { createServer, connect } from "node:net"

export class Line {
  #listener
  #server
  #cut = false
  #near = new Set()
  #waiting = new Set()

  constructor(server) {
    this.#server = server
    this.onUp = () => this.#connectWaiting()
    server.on("up", this.onUp)
  }

  async open() {
    this.#listener = createServer({ noDelay: true }, socket => this.#accept(socket))
    this.#listener.listen(0, "127.0.0.1")
    await once(this.#listener, "listening")
    return this
  }

  get url() {
    return `ws://127.0.0.1:${this.#listener.address().port}`
  }

  cut() {
    this.#cut = true
    for (const near of this.#near) if (!this.#waiting.has(near)) near.destroy()
  }

  mend() {
    this.#cut = false
    this.#connectWaiting()
  }

  async close() {
    this.#server.off("up", this.onUp)
    for (const near of this.#near) near.destroy()
    const closed = once(this.#listener, "close")
    this.#listener.close()
    await closed
  }

  #accept(near) {
    // What the client says before the server has said anything, to be said again to the next server.
    near.opening = []
    near.on("error", () => {})
    near.on("close", () => {
      this.#near.delete(near)
      this.#waiting.delete(near)
      near.far?.destroy()
    })
    near.on("data", data => {
      near.opening?.push(data)
      near.far?.write(data)
    })
    near.on("end", () => near.far?.end())
    this.#near.add(near)
    this.#dial(near)
  }

  #dial(near) {
    if (this.#cut || !this.#server.running || this.#server.port === 0) {
      this.#waiting.add(near)
      return
    }
    this.#waiting.delete(near)
    const far = connect({ port: this.#server.port, host: "127.0.0.1", noDelay: true })
    near.far = far
    for (const data of near.opening) far.write(data)
    far.on("data", data => {
      near.opening = undefined
      near.write(data)
    })
    far.on("error", () => {})
    far.on("end", () => near.opening || near.end())
    far.on("close", () => {
      near.far = undefined
      if (near.destroyed) return
      // Not answered yet: the server ended in between, so the client keeps waiting for the next one.
      if (near.opening) this.#waiting.add(near)
      else near.end()
    })
  }

  #connectWaiting() {
    if (this.#cut) return
    for (const near of [...this.#waiting]) this.#dial(near)
  }
}
