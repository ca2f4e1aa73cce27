// One test's surroundings: a server with its own folder, and clients and lines that are all gone at
// its end. If the test fails, the server's log is printed.

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test as base } from "vitest"
import { newest } from "./clients.mjs"
import { Line } from "./line.mjs"
import { Server } from "./server.mjs"

class World {
  #clients = []
  #lines = []

  constructor(folder) {
    this.folder = folder
    this.server = new Server(join(folder, "data"))
  }

  /** A connected client, on the server's own port unless given another url. */
  async client(version = newest, { url = this.server.url, ...options } = {}) {
    return this.absentClient(version, { url, ...options }).connected()
  }

  /** A client that may not reach the server yet. */
  absentClient(version, { url, ...options }) {
    const client = new version.Client(url, options)
    this.#clients.push(client)
    return client
  }

  /** A client on a line of its own: returns both. */
  async clientOnLine(version = newest, options = {}) {
    const line = await this.line()
    const client = await this.client(version, { url: line.url, ...options })
    return { client, line }
  }

  async line() {
    const line = await new Line(this.server).open()
    this.#lines.push(line)
    return line
  }

  async end() {
    for (const client of this.#clients) client.close()
    await Promise.all(this.#lines.map(line => line.close()))
    await this.server.kill9()
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 })
  }
}

export const test = base.extend({
  world: async ({ onTestFailed }, use) => {
    const world = new World(await mkdtemp(join(tmpdir(), "highwater-interop-")))
    onTestFailed(() => console.error(`server log:\n${world.server.log}`))
    try {
      await world.server.start()
      await use(world)
    } finally {
      await world.end()
    }
  },
})

export const full = process.env.HIGHWATER_FULL === "1"
