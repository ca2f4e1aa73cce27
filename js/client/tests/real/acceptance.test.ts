// The acceptance tests that automerge-repo ships for network adapters, twice:
// - All of them with automerge-repo's own WebSocket server adapter in the middle, as its client adapter is tested.
// - With our server as the network between three of ours. Three of the seven do not apply then, as they expect two
//   adapters to be each other's peers, and here everybody's peer is the server; vitest.config.ts leaves them out:
//   "emits a peer-candidate event with proper peer metadata when a peer connects" waits for the other's peer id,
//   "should emit disconnect events on disconnect" for the end of a connection that goes on, and
//   "should not send messages after disconnect" for the same before it begins.

import { once } from "node:events"
import { mkdtemp } from "node:fs/promises"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Repo } from "@automerge/automerge-repo"
import { runNetworkAdapterTests } from "@automerge/automerge-repo/helpers/tests/network-adapter-tests.js"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { afterEach } from "vitest"
import { WebSocketServer } from "ws"
import { HighwaterClientAdapter } from "../../src/index.js"
import { World } from "./world.js"

const worlds: World[] = []
const adapters: HighwaterClientAdapter[] = []
const stockServers: WebSocketServer[] = []
afterEach(async () => {
  for (const adapter of adapters.splice(0)) {
    // The tests reconnect from timers that may outlive them.
    adapter.connect = () => {}
    adapter.disconnect()
  }
  for (const world of worlds.splice(0)) await world.end()
  for (const server of stockServers.splice(0)) server.close()
})

/** They give a new document 50 ms to reach the server, which is not enough for a cold process. */
async function warmUp(world: World): Promise<void> {
  const { adapter, repo } = world.client()
  const handle = repo.create({ warm: true })
  await adapter.whenSaved(handle)
  await world.client().repo.find(handle.url)
}

runNetworkAdapterTests(async () => {
  const world = new World(await mkdtemp(join(tmpdir(), "highwater-client-")))
  worlds.push(world)
  await world.server.start()
  await warmUp(world)
  const three = [1, 2, 3].map(() => new HighwaterClientAdapter(world.server.url))
  adapters.push(...three)
  return { adapters: three as any }
}, "through the server")

runNetworkAdapterTests(async () => {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 })
  await once(server, "listening")
  stockServers.push(server)
  const { port } = server.address() as AddressInfo
  const ours = [1, 2].map(() => new HighwaterClientAdapter(`ws://127.0.0.1:${port}`))
  adapters.push(...ours)
  return { adapters: [ours[0], new WebSocketServerAdapter(server as any), ours[1]] as any }
}, "with the stock server adapter")

// Kept for its side effect: the acceptance tests import the slim entry point and need WebAssembly loaded.
void Repo
