// The acceptance tests that automerge-repo ships for network adapters, with the server as the network between
// three of ours. vitest.config.ts picks those that apply to a hub.

import { mkdtemp } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Repo } from "@automerge/automerge-repo"
import { runNetworkAdapterTests } from "@automerge/automerge-repo/helpers/tests/network-adapter-tests.js"
import { afterEach } from "vitest"
import { HighwaterClientAdapter } from "../../src/index.js"
import { World } from "./world.js"

const worlds: World[] = []
const adapters: HighwaterClientAdapter[] = []
afterEach(async () => {
  for (const adapter of adapters.splice(0)) {
    // The tests reconnect from timers that may outlive them.
    adapter.connect = () => {}
    adapter.disconnect()
  }
  for (const world of worlds.splice(0)) await world.end()
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

// Kept for its side effect: the acceptance tests import the slim entry point and need WebAssembly loaded.
void Repo
