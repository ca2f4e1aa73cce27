import type { DocHandle, Repo } from "@automerge/automerge-repo/slim"

/** What a watched repo tells. */
export interface RepoEvents {
  /** The document is this one now: it was loaded, changed here, or received. */
  onDocument(handle: DocHandle<unknown>, doc: any): void
  /** The document was deleted. */
  onDeleted(documentId: string): void
}

/**
 * Follows every document of a repo. Returns its own undo.
 *
 * automerge-repo 2.5 tells nobody about new handles, so this stands between the repo and its synchronizer,
 * which is handed every handle before the handle has any contents.
 */
export function watchRepo(repo: Repo, events: RepoEvents): () => void {
  const watched = new Map<DocHandle<unknown>, () => void>()
  const watch = (handle: DocHandle<unknown>) => {
    if (watched.has(handle)) return
    watched.set(handle, watchHandle(handle, events))
  }
  const { synchronizer } = repo
  const addDocument = synchronizer.addDocument.bind(synchronizer)
  const standIn = (handle: DocHandle<unknown>) => {
    watch(handle)
    addDocument(handle)
  }
  synchronizer.addDocument = standIn
  for (const handle of Object.values(repo.handles)) watch(handle)
  // Not of each handle: what is deleted without having been open gets one that nobody is told about.
  const onDelete = ({ documentId }: { documentId: string }) => events.onDeleted(documentId)
  repo.on("delete-document", onDelete)
  return () => {
    repo.off("delete-document", onDelete)
    if (synchronizer.addDocument === standIn) synchronizer.addDocument = addDocument
    for (const undo of watched.values()) undo()
  }
}

function watchHandle(handle: DocHandle<unknown>, events: RepoEvents): () => void {
  const onHeads = ({ doc }: { doc: unknown }) => events.onDocument(handle, doc)
  handle.on("heads-changed", onHeads)
  if (handle.isReady()) events.onDocument(handle, handle.doc())
  return () => void handle.off("heads-changed", onHeads)
}
