// The acceptance tests that automerge-repo ships for network adapters, run with the server as the
// network between the three peers. vitest.config.mjs picks the ones that apply to a hub.

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
// The tests import the package without its WebAssembly; this loads it for them.
import "@automerge/automerge-repo"
import { runNetworkAdapterTests } from "@automerge/automerge-repo/helpers/tests/network-adapter-tests.js"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { Server } from "../lib/server.mjs"

const RETRY_MS = 60_000

runNetworkAdapterTests(async () => {
  const folder = await mkdtemp(join(tmpdir(), "highwater-acceptance-"))
  const server = await new Server(join(folder, "data")).start()
  const adapters = [1, 2, 3].map(() => new WebSocketClientAdapter(server.url, RETRY_MS))
  const teardown = async () => {
    for (const adapter of adapters) {
      adapter.connect = () => {}
      if (adapter.socket) adapter.disconnect()
    }
    await server.kill9()
    await rm(folder, { recursive: true, force: true, maxRetries: 3 })
  }
  return { adapters, teardown }
}, "through the server")
