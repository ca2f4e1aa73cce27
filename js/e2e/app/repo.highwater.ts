import { Repo } from "@automerge/automerge-repo"
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb"
import { HighwaterClientAdapter } from "@highwater/client"
import type { Construction } from "./construction.js"

export function construct(url: string): Construction {
  const adapter = new HighwaterClientAdapter(url)
  const repo = new Repo({ network: [adapter], storage: new IndexedDBStorageAdapter() })
  return { repo, source: adapter.attach(repo) }
}
