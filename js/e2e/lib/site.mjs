// Serves the bundled pages. The same files are on two origins, so that there is somewhere else to go.

import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"

const dist = fileURLToPath(new URL("../dist", import.meta.url))
const FILES = /^\/(highwater|stock)\/(app\.js)?$/

export class Site {
  #http

  async open() {
    this.#http = createServer((request, response) => void answer(request, response))
    this.#http.listen(0, "127.0.0.1")
    await once(this.#http, "listening")
    return this
  }

  /** The page made with this client. Without a document it opens none. */
  page(client, server, document) {
    const parameters = new URLSearchParams({ server, ...(document && { document }) })
    return `http://127.0.0.1:${this.#port}/${client}/?${parameters}`
  }

  /** A page of another origin and another site. */
  get elsewhere() {
    return `http://localhost:${this.#port}/elsewhere`
  }

  async close() {
    this.#http.closeAllConnections()
    this.#http.close()
    await once(this.#http, "close")
  }

  get #port() {
    return this.#http.address().port
  }
}

async function answer(request, response) {
  const { pathname } = new URL(request.url, "http://localhost")
  const match = FILES.exec(pathname)
  if (!match) return response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><p>Another page.</p>")
  const [, client, script] = match
  const body = await readFile(`${dist}/${client}/${script ?? "index.html"}`)
  response.writeHead(200, { "content-type": script ? "text/javascript" : "text/html" }).end(body)
}
