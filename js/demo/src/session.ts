import { Repo } from "@automerge/automerge-repo/slim"
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb"
import { HighwaterClientAdapter, IndexedDBStore } from "@highwater/client"
import { Line } from "./line.js"
import { outboxName, type Server } from "./server.js"

/** Everything that lives as long as the tab. */
export interface Session {
  readonly server: Server
  readonly repo: Repo
  readonly adapter: HighwaterClientAdapter
  readonly outbox: IndexedDBStore
  readonly line: Line
}

/** Opens the repo, with the client in place of automerge-repo's WebSocket adapter. */
export function openSession(server: Server): Session {
  const line = new Line()
  const outbox = new IndexedDBStore(outboxName(server))
  const adapter = new HighwaterClientAdapter(server.webSocketUrl, {
    outbox,
    environment: line.environment,
    // Shorter than usual, so that nobody has to watch a dead line for twenty seconds.
    heartbeatInterval: 4000,
    heartbeatTimeout: 4000,
  })
  const storage = new IndexedDBStorageAdapter(`highwater-demo ${server.webSocketUrl}`)
  const repo = new Repo({ network: [adapter], storage })
  adapter.attach(repo)
  return { server, repo, adapter, outbox, line }
}
