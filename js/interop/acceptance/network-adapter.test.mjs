// The acceptance tests that automerge-repo ships for network adapters, run with the server as the
// network between the three peers. vitest.config.mjs picks the ones that apply to a hub.

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
// Not the slim entry point: the acceptance tests import that one and need the WebAssembly loaded.
import { Repo } from "@automerge/automerge-repo"
import { runNetworkAdapterTests } from "@automerge/automerge-repo/helpers/tests/network-adapter-tests.js"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { afterEach } from "vitest"
import { Server } from "../lib/server.mjs"

const RETRY_MS = 60_000

/**
 * The tests give a new document 50 ms to get from its author to the server. That is plenty, but not for
 * the first connection of a cold process, so one document makes the way before the clock is running.
 */
async function warmUp(url) {
  const repos = [1, 2].map(() => new Repo({ network: [new WebSocketClientAdapter(url, RETRY_MS)] }))
  const handle = repos[0].create({ warm: true })
  await new Promise(resolve => handle.once("remote-heads", resolve))
  await repos[1].find(handle.url)
  for (const repo of repos) await repo.shutdown()
}

// What the tests' own teardown does not get to when one of them fails.
const cleanups = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0)) await cleanup()
})

runNetworkAdapterTests(async () => {
  const folder = await mkdtemp(join(tmpdir(), "highwater-acceptance-"))
  const server = new Server(join(folder, "data"))
  const adapters = []
  cleanups.push(async () => {
    for (const adapter of adapters) {
      adapter.connect = () => {}
      if (adapter.socket) adapter.disconnect()
    }
    await server.kill9()
    await rm(folder, { recursive: true, force: true, maxRetries: 3 })
  })
  await server.start()
  await warmUp(server.url)
  for (let i = 0; i < 3; i++) adapters.push(new WebSocketClientAdapter(server.url, RETRY_MS))
  return { adapters }
}, "through the server")
