import { useEffect, useState, useSyncExternalStore, type ReactNode } from "react"
import type { LineState } from "./line.js"
import { kill, mayBeKilled } from "./server.js"
import type { Session } from "./session.js"

export interface PlugsProps {
  session: Session
  /** Types some words into the text, at once. */
  type(words: string): void
  /** Ends the page at once. */
  leave(): void
}

/** The ways to pull the plug. */
export function Plugs({ session, type, leave }: PlugsProps) {
  const { line, server } = session
  const state = useSyncExternalStore(line.onChange, () => line.state)
  const [typesFirst, setTypesFirst] = useState(true)
  const canKill = useCanKill(session)
  const typeFirst = (words: string) => {
    if (typesFirst) type(words)
  }
  const pull = (words: string, plug: () => void) => () => {
    typeFirst(words)
    plug()
  }
  const goOffline = () => {
    line.goOffline()
    // After the plug: the words are written while there is no line.
    typeFirst("Typed without a connection.")
  }
  const isOffline = state === "offline"
  return (
    <section aria-labelledby="plugs-title" className="plugs">
      <h2 id="plugs-title">Pull the plug</h2>
      <label className="check">
        <input type="checkbox" checked={typesFirst} onChange={({ target }) => setTypesFirst(target.checked)} />
        Type a line in the same instant
      </label>
      <ul>
        <Plug name="Drop the connection" disabled={isOffline} onPull={pull("Typed as the line broke.", () => line.drop())}>
          The socket breaks, and what was on it is lost.
        </Plug>
        <Plug
          name="Half-open it"
          disabled={state !== "up"}
          onPull={() => {
            line.halfOpen()
            typeFirst("Typed into a dead line.")
          }}
        >
          It looks open, and nothing gets through. The client finds out within 8 seconds.
        </Plug>
        <Plug name={isOffline ? "Go online again" : "Go offline"} onPull={isOffline ? () => line.goOnline() : goOffline}>
          {isOffline ? "What was written meanwhile is sent at once." : "No network until you say so. Close the tab meanwhile, if you like."}
        </Plug>
        <Plug
          name="Close the page at once"
          onPull={() => {
            type("Typed as the page closed.")
            leave()
          }}
        >
          A line is typed and the page is gone in the same instant. Then the server is asked whether it has it.
        </Plug>
        {canKill && (
          <Plug name="Kill the server" danger disabled={isOffline} onPull={pull("Typed as the server died.", () => void kill(server))}>
            Its process ends without a word, as with <code>kill -9</code>. It is started again after 2 seconds.
          </Plug>
        )}
      </ul>
      <LineNote state={state} session={session} />
    </section>
  )
}

interface PlugProps {
  name: string
  danger?: boolean
  disabled?: boolean
  onPull(): void
  children: ReactNode
}

function Plug({ name, danger, disabled, onPull, children }: PlugProps) {
  const id = `plug-${name.toLowerCase().replaceAll(" ", "-")}`
  return (
    <li>
      <button type="button" className={danger ? "button danger" : "button"} disabled={disabled} aria-describedby={id} onClick={onPull}>
        {name}
      </button>
      <p id={id} className="quiet">
        {children}
      </p>
    </li>
  )
}

const LINE_WORDS: Record<LineState, string> = {
  up: "",
  halfOpen: "Half-open: nothing gets through",
  offline: "Offline: you pulled the plug",
}

function LineNote({ state, session: { adapter } }: { state: LineState; session: Session }) {
  // The adapter says through the save status when its connection is another one.
  const connection = useSyncExternalStore(adapter.onSaveStatus.bind(adapter), () => adapter.state)
  const plain = connection === "open" ? "Connected" : connection === "stopped" ? "Stopped: reload the page" : "Connecting…"
  return (
    <p className="line" data-line={state} data-connection={connection}>
      <span className="dot" aria-hidden="true" />
      {LINE_WORDS[state] || plain}
    </p>
  )
}

function useCanKill({ server }: Session): boolean {
  const [canKill, setCanKill] = useState(false)
  useEffect(() => void mayBeKilled(server).then(setCanKill), [server])
  return canKill
}
