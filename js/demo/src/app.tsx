import { isValidAutomergeUrl, type AutomergeUrl } from "@automerge/automerge-repo/slim"
import { SaveStatusProvider } from "@highwater/client/react"
import { useEffect, useState, type ReactNode } from "react"
import { Header, RecentList } from "./header.js"
import { useConnection, useHash } from "./hooks.js"
import { emptyPage, isPage, type PageDoc, type PageHandle } from "./page-doc.js"
import { PageView } from "./page-view.js"
import { recentPages } from "./recent-pages.js"
import type { Session } from "./session.js"

/** Shows what the address names: a page, a new one, or the list of pages. */
export function App({ session }: { session: Session }) {
  const hash = useHash()
  const isNew = hash === "new" || (hash === "" && recentPages().length === 0)
  useEffect(() => {
    if (!isNew) return
    const { url } = session.repo.create<PageDoc>(emptyPage())
    // In place of the address that asked for it, so that "back" does not make another one.
    history.replaceState(null, "", `#${url}`)
    window.dispatchEvent(new HashChangeEvent("hashchange"))
  }, [session, isNew])
  return <SaveStatusProvider source={session.adapter}>{isNew ? null : <Place session={session} hash={hash} />}</SaveStatusProvider>
}

function Place({ session, hash }: { session: Session; hash: string }) {
  if (hash === "") return <Start />
  if (isValidAutomergeUrl(hash)) return <OpenPage key={hash} session={session} url={hash} />
  return (
    <Notice title="No such page">
      <p>This address names no page.</p>
    </Notice>
  )
}

function Start() {
  return (
    <Notice title="Your pages">
      <RecentList />
    </Notice>
  )
}

function OpenPage({ session, url }: { session: Session; url: AutomergeUrl }) {
  const [handle, setHandle] = useState<PageHandle>()
  const [isMissing, setIsMissing] = useState(false)
  useEffect(() => {
    let hasEnded = false
    void open(session, url, () => !hasEnded && setIsMissing(true)).then(found => !hasEnded && setHandle(found))
    return () => void (hasEnded = true)
  }, [session, url])
  if (!handle && isMissing) return <Missing session={session} />
  if (!handle) {
    return (
      <>
        <Header />
        <main className="notice">
          <p className="quiet" role="status">
            Opening…
          </p>
        </main>
      </>
    )
  }
  if (isPage(handle.doc())) return <PageView session={session} handle={handle} />
  return (
    <Notice title="Not a page">
      <p>There is such a document, and it is something else than a page of this demo.</p>
    </Notice>
  )
}

/** Resolves when the document is there, also if that takes a connection that is not there yet. */
async function open({ repo }: Session, url: AutomergeUrl, onMissing: () => void): Promise<PageHandle> {
  const handle = await repo.find<PageDoc>(url, { allowableStates: ["ready", "unavailable"] })
  if (handle.isReady()) return handle
  onMissing()
  return new Promise(resolve => {
    const look = () => {
      if (!handle.isReady()) return
      handle.off("heads-changed", look)
      resolve(handle)
    }
    handle.on("heads-changed", look)
  })
}

function Missing({ session: { adapter } }: { session: Session }) {
  const connection = useConnection(adapter)
  return (
    <Notice title="This page is not here">
      <p>
        {connection === "open"
          ? "It is not on this device, and the server does not have it."
          : "It is not on this device, and the server cannot be reached. The page appears as soon as it can."}
      </p>
    </Notice>
  )
}

function Notice({ title, children }: { title: string; children: ReactNode }) {
  return (
    <>
      <Header />
      <main className="notice">
        <h1>{title}</h1>
        {children}
        <p>
          <a className="button" href="#new">
            New page
          </a>
        </p>
      </main>
    </>
  )
}
