// A real server and what stands around it, from the interop tests.

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Repo, type RepoConfig } from "@automerge/automerge-repo"
import { test as base } from "vitest"
import { HighwaterClientAdapter, type HighwaterClientAdapterOptions } from "../../src/index.js"

const interop = (file: string) => import(new URL(`../../../interop/lib/${file}`, import.meta.url).href)
const { Server } = await interop("server.mjs")
const { Line } = await interop("line.mjs")

export class World {
  readonly #adapters: HighwaterClientAdapter[] = []
  readonly #lines: Array<{ close(): Promise<void> }> = []
  readonly server: any

  constructor(readonly folder: string) {
    this.server = new Server(join(folder, "data"))
  }

  client(options: HighwaterClientAdapterOptions & { repo?: RepoConfig; url?: string } = {}) {
    const { repo: repoConfig, url = this.server.url, ...rest } = options
    const adapter = new HighwaterClientAdapter(url, { backoff: { min: 50, max: 500 }, ...rest })
    const repo = new Repo({ network: [adapter], ...repoConfig })
    adapter.attach(repo)
    this.#adapters.push(adapter)
    return { adapter, repo }
  }

  async line(): Promise<{ url: string; cut(): void; mend(): void }> {
    const line = await new Line(this.server).open()
    this.#lines.push(line)
    return line
  }

  async end(): Promise<void> {
    for (const adapter of this.#adapters) adapter.disconnect()
    await Promise.all(this.#lines.map(line => line.close()))
    await this.server.kill9()
    await rm(this.folder, { recursive: true, force: true, maxRetries: 3 })
  }
}

export const test = base.extend<{ world: World }>({
  world: async ({ onTestFailed }, use) => {
    const world = new World(await mkdtemp(join(tmpdir(), "highwater-client-")))
    onTestFailed(() => console.error(`server log:\n${world.server.log}`))
    try {
      await world.server.start()
      await use(world)
    } finally {
      await world.end()
    }
  },
})
