import * as A from "@automerge/automerge/slim"
import type { EditorView } from "prosemirror-view"
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react"
import { ChangeLog } from "./change-log.js"
import { closedPageUrl } from "./closed-url.js"
import { Editor } from "./editor.js"
import { typeLine } from "./editor-state.js"
import { Header } from "./header.js"
import { useDoc } from "./hooks.js"
import { LedgerView } from "./ledger-view.js"
import { titleOf, type PageHandle } from "./page-doc.js"
import { Plugs } from "./plugs.js"
import { Presence } from "./presence.js"
import { rememberPage } from "./recent-pages.js"
import { SaveChip } from "./save-chip.js"
import type { Session } from "./session.js"
import { SharedInput } from "./shared-input.js"
import { TodoList } from "./todo-list.js"

/** What lives as long as a page is shown. */
interface Shown {
  readonly presence: Presence
  readonly log: ChangeLog
}

/** A page, and the panel beside it. */
export function PageView({ session, handle }: { session: Session; handle: PageHandle }) {
  const [shown, setShown] = useState<Shown>()
  useEffect(() => {
    const presence = new Presence(handle)
    const log = new ChangeLog(session.adapter, handle)
    setShown({ presence, log })
    return () => {
      presence.end()
      log.end()
    }
  }, [session, handle])
  return shown && <Page session={session} handle={handle} {...shown} />
}

function Page({ session, handle, presence, log }: { session: Session; handle: PageHandle } & Shown) {
  const doc = useDoc(handle)
  const title = titleOf(doc)
  const people = useSyncExternalStore(presence.subscribe, presence.get)
  const view = useRef<EditorView>(undefined)
  const onView = useCallback((made: EditorView | undefined) => void (view.current = made), [])
  useEffect(() => {
    document.title = `${title} – Highwater`
    rememberPage({ url: handle.url, title })
  }, [handle, title])
  const leave = () => location.assign(closedPageUrl(handle, session.server))
  return (
    <>
      <Header me={presence.me} people={people}>
        <SaveChip handle={handle} />
      </Header>
      <main className="layout">
        <article className="page">
          <h1 className="read-out">{title}</h1>
          <SharedInput
            className="title"
            text={doc.title}
            placeholder="Untitled page"
            aria-label="Title of the page"
            onText={text => handle.change(doc => A.updateText(doc, ["title"], text))}
          />
          <Editor handle={handle} presence={presence} onView={onView} />
          <TodoList handle={handle} todos={doc.todos} />
        </article>
        <aside className="panel" aria-label="What is saved">
          <Plugs session={session} type={words => view.current && typeLine(view.current, words)} leave={leave} />
          <LedgerView session={session} handle={handle} log={log} />
        </aside>
      </main>
    </>
  )
}
