import type { DocHandle, Repo } from "@automerge/automerge-repo/slim"

/** What a watched repo tells. */
export interface RepoEvents {
  /** The document is this one now: it was loaded, changed here, or received. */
  onDocument(handle: DocHandle<unknown>, doc: any): void
  /** The document was deleted. */
  onDeleted(documentId: string): void
}

/**
 * Follows every document of a repo, for as long as there is the repo.
 *
 * automerge-repo 2.5 tells nobody about new handles, so this stands between the repo and its synchronizer,
 * which is handed every handle before the handle has any contents.
 */
export function watchRepo(repo: Repo, events: RepoEvents): void {
  const watched = new WeakSet<DocHandle<unknown>>()
  const watch = (handle: DocHandle<unknown>) => {
    if (watched.has(handle)) return
    watched.add(handle)
    watchHandle(handle, events)
  }
  const { synchronizer } = repo
  const addDocument = synchronizer.addDocument.bind(synchronizer)
  synchronizer.addDocument = (handle: DocHandle<unknown>) => {
    watch(handle)
    addDocument(handle)
  }
  for (const handle of Object.values(repo.handles)) watch(handle)
  // Not of each handle: what is deleted without having been open gets one that nobody is told about.
  repo.on("delete-document", ({ documentId }) => events.onDeleted(documentId))
}

function watchHandle(handle: DocHandle<unknown>, events: RepoEvents): void {
  handle.on("heads-changed", ({ doc }) => events.onDocument(handle, doc))
  if (handle.isReady()) events.onDocument(handle, handle.doc())
}
