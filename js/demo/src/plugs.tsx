import { useEffect, useId, useState, useSyncExternalStore } from "react"
import { useConnection } from "./hooks.js"
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

/** A way to pull the plug. */
interface Plug {
  readonly name: string
  readonly words: string
  readonly isDanger?: boolean
  readonly isOff?: boolean
  pull(): void
}

/** The ways to pull the plug. */
export function Plugs({ session, type, leave }: PlugsProps) {
  const { line } = session
  const state = useSyncExternalStore(line.onChange, () => line.state)
  const [typesFirst, setTypesFirst] = useState(true)
  const [note, setNote] = useState("")
  const canKill = useCanKill(session)
  const plugs = plugsFor(session, state, words => typesFirst && type(words))
  plugs.push({
    name: "Close at once",
    words: "The page types a line and is gone in the same instant. Then the server is asked whether it has it.",
    pull: () => {
      type("Typed as the page closed.")
      leave()
    },
  })
  return (
    <section aria-labelledby="plugs-title" className="plugs">
      <h2 id="plugs-title">Pull the plug</h2>
      <ul>
        {plugs.map((plug, place) => (
          <PlugButton key={place} plug={plug} onNote={setNote} />
        ))}
        {canKill && <PlugButton plug={killPlug(session, state, words => typesFirst && type(words))} onNote={setNote} />}
      </ul>
      <p className="note quiet">{note || "Each breaks something real. Try one while you type, and watch what becomes of your changes."}</p>
      <label className="check">
        <input type="checkbox" checked={typesFirst} onChange={({ target }) => setTypesFirst(target.checked)} />
        Type a line in the same instant
      </label>
      <LineNote state={state} session={session} />
    </section>
  )
}

function plugsFor({ line }: Session, state: LineState, type: (words: string) => void): Plug[] {
  const isOffline = state === "offline"
  return [
    {
      name: "Drop connection",
      words: "The socket breaks, and what was on it is lost. The client connects anew.",
      isOff: isOffline,
      pull: () => {
        type("Typed as the line broke.")
        line.drop()
      },
    },
    {
      name: "Half-open it",
      words: "The socket looks open, and nothing gets through. The client finds out within 8 seconds.",
      isOff: state !== "up",
      pull: () => {
        line.halfOpen()
        type("Typed into a dead line.")
      },
    },
    isOffline
      ? { name: "Go online again", words: "What was written meanwhile is sent at once.", pull: () => line.goOnline() }
      : {
          name: "Go offline",
          words: "No network until you say so. Close the tab meanwhile, if you like: the outbox keeps what you wrote.",
          pull: () => {
            line.goOffline()
            type("Typed without a connection.")
          },
        },
  ]
}

function killPlug({ server }: Session, state: LineState, type: (words: string) => void): Plug {
  return {
    name: "Kill the server",
    words: "Its process ends without a word, as with kill -9. It is started again after 2 seconds.",
    isDanger: true,
    isOff: state === "offline",
    pull: () => {
      type("Typed as the server died.")
      void kill(server)
    },
  }
}

function PlugButton({ plug, onNote }: { plug: Plug; onNote(words: string): void }) {
  const { name, words, isDanger, isOff, pull } = plug
  const id = useId()
  const tell = () => onNote(words)
  return (
    <li>
      <button
        type="button"
        className={isDanger ? "button danger" : "button"}
        // Not "disabled", which would take the focus away from whoever has just pressed it.
        aria-disabled={isOff ?? false}
        aria-describedby={id}
        onPointerEnter={tell}
        onFocus={tell}
        onClick={() => {
          if (isOff) return
          tell()
          pull()
        }}
      >
        {name}
      </button>
      <span id={id} className="read-out">
        {words}
      </span>
    </li>
  )
}

const LINE_WORDS: Record<LineState, string> = {
  up: "",
  halfOpen: "Half-open: nothing gets through",
  offline: "Offline: you pulled the plug",
}

/** Whether there is a connection, and which plug is out. */
function LineNote({ state, session: { adapter } }: { state: LineState; session: Session }) {
  const connection = useConnection(adapter)
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
