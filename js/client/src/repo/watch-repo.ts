import type { DocHandle, Repo } from "@automerge/automerge-repo/slim"

/** What a watched repo tells. */
export interface RepoEvents {
  /** The document is this one now: it was loaded, changed here, or received; or imported, and then it may be stored nowhere. */
  onDocument(handle: DocHandle<unknown>, doc: any, isImported: boolean): void
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
    handle.on("heads-changed", ({ doc }) => events.onDocument(handle, doc, isImporting))
    if (handle.isReady()) events.onDocument(handle, handle.doc(), isImporting)
  }
  // automerge-repo stores what changes from then on, and not what a document was imported with under an id of its own.
  // Of what is there already nobody knows where it came from.
  let isImporting = true
  const importDocument = repo.import
  repo.import = function <T>(...args: Parameters<Repo["import"]>): DocHandle<T> {
    isImporting = true
    try {
      return importDocument.apply(repo, args) as DocHandle<T>
    } finally {
      isImporting = false
    }
  }
  const { synchronizer } = repo
  const addDocument = synchronizer.addDocument.bind(synchronizer)
  synchronizer.addDocument = (handle: DocHandle<unknown>) => {
    watch(handle)
    addDocument(handle)
  }
  for (const handle of Object.values(repo.handles)) watch(handle)
  isImporting = false
  // Not of each handle: what is deleted without having been open gets one that nobody is told about.
  repo.on("delete-document", ({ documentId }) => events.onDeleted(documentId))
}
