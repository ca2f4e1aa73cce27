import { Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb"
import type { Construction } from "./construction.js"

export function construct(url: string): Construction {
  const adapter = new WebSocketClientAdapter(url)
  const repo = new Repo({ network: [adapter], storage: new IndexedDBStorageAdapter() })
  return { repo, source: undefined }
}
