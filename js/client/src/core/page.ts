import type { Environment } from "./environment.js"
import type { PendingChange } from "./ledger.js"
import { fitting, type Post } from "./post.js"
import type { SaveTracker } from "./save-tracker.js"

/**
 * What all requests together may carry that a closing page leaves behind. Browsers allow 64 KiB for all of a
 * page, and fail every request that would exceed it.
 */
export const PARTING_BYTES_MAX = 60 * 1024

/** Hands a closing tab's last changes to the browser, which delivers them without the tab. */
export class PartingPost {
  readonly #tracker: SaveTracker
  readonly #post: Post
  #inFlight = 0

  constructor(tracker: SaveTracker, post: Post) {
    this.#tracker = tracker
    this.#post = post
  }

  /** Posts what the server has not called durable and not refused, oldest first, as far as there is room. */
  post(): void {
    if (!this.#post.isPossible) return
    for (const { documentId, hopeful } of this.#tracker.documents) {
      const changes = fitting(hopeful, PARTING_BYTES_MAX - this.#inFlight)
      if (changes.length > 0) void this.#postOne(documentId, changes)
    }
  }

  async #postOne(documentId: string, changes: readonly PendingChange[]): Promise<void> {
    const size = sizeOf(changes)
    this.#inFlight += size
    // The page may have been hidden only, and then it hears the answer.
    await this.#post.sendParting(documentId, changes)
    this.#inFlight -= size
  }
}

/** What a page does about unsaved changes. */
export interface PageOptions {
  /** Ask before the tab is closed while changes are not on the server. */
  warnOnUnload: boolean
}

/** What a page's life asks of a client. */
export interface PageHandlers {
  /** The page may be gone any moment. */
  onHidden(): void
  /** The network or the page is back. */
  onAwake(): void
  /** The page is put away whole; an open socket would keep it from coming back as it is. */
  onSuspend(): void
  /** And here it is again. */
  onResume(): void
}

/** Listens to the page. Returns its own undo. */
export function followPage(
  environment: Environment,
  tracker: SaveTracker,
  options: PageOptions,
  handlers: PageHandlers
): () => void {
  const { window, document } = environment
  const undo: Array<() => void> = []
  const on = (source: Environment["window"], type: string, listener: (event: any) => void) => {
    source?.addEventListener(type, listener)
    undo.push(() => source?.removeEventListener(type, listener))
  }
  // In the order in which they can be relied on: phones fire only the first before they end a page.
  on(document, "visibilitychange", () => {
    if (document?.visibilityState === "hidden") handlers.onHidden()
    else handlers.onAwake()
  })
  on(window, "pagehide", event => {
    handlers.onHidden()
    if (event?.persisted) handlers.onSuspend()
  })
  on(document, "freeze", () => handlers.onHidden())
  on(window, "pageshow", event => {
    if (event?.persisted) handlers.onResume()
  })
  on(window, "online", () => handlers.onAwake())
  if (options.warnOnUnload && window) undo.push(warnOnUnload(window, tracker))
  return () => undo.forEach(one => one())
}

/** Asks before unloading, with a listener that is there only while it has a reason: it costs pages their fast way back. */
function warnOnUnload(window: NonNullable<Environment["window"]>, tracker: SaveTracker): () => void {
  const ask = (event: any) => {
    event.preventDefault()
    // For browsers that do not know preventDefault here.
    event.returnValue = true
  }
  let isAsking = false
  const look = () => {
    const shouldAsk = tracker.saveStatus().unsavedChanges > 0
    if (shouldAsk === isAsking) return
    isAsking = shouldAsk
    if (isAsking) window.addEventListener("beforeunload", ask)
    else window.removeEventListener("beforeunload", ask)
  }
  const unsubscribe = tracker.onSaveStatus(look)
  look()
  return () => {
    unsubscribe()
    window.removeEventListener("beforeunload", ask)
  }
}

function sizeOf(changes: readonly PendingChange[]): number {
  return changes.reduce((sum, { bytes }) => sum + bytes.length, 0)
}
