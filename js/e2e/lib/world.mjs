// What rounds are played in: a server, a site and a browser for one of the two clients.

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Line } from "../../interop/lib/line.mjs"
import { Server } from "../../interop/lib/server.mjs"
import { chromiumPath, Profile } from "./profile.mjs"
import { Site } from "./site.mjs"

/** Which server each client is tested with. */
const SERVERS = { highwater: "highwater", stock: "node" }

export class World {
  static async open(client = "highwater") {
    chromiumPath()
    const world = new World()
    world.client = client
    try {
      world.folder = await mkdtemp(join(tmpdir(), "highwater-e2e-"))
      world.server = await new Server(join(world.folder, "data"), SERVERS[client]).start()
      world.site = await new Site().open()
      world.line = await new Line(world.server).open()
      world.profile = await new Profile(join(world.folder, "profile")).open()
      return world
    } catch (error) {
      await world.close()
      throw error
    }
  }

  /** A page of the application, with this document if one is given. */
  page(documentUrl, { url = this.server.url } = {}) {
    return this.profile.page(this.site.page(this.client, url, documentUrl))
  }

  /** A page in a browser of somebody else: it shares no storage and no locks with others. */
  strangersPage(documentUrl, { client = this.client } = {}) {
    return this.profile.strangersPage(this.site.page(client, this.server.url, documentUrl))
  }

  async close() {
    await this.profile?.close()
    await this.line?.close()
    await this.server?.kill9()
    await this.site?.close()
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }
}
