import type { OutboxChange } from "@highwater/client"
import { useSaveStatus } from "@highwater/client/react"
import { useSyncExternalStore } from "react"
import type { ChangeLog, LoggedChange } from "./change-log.js"
import { useNow } from "./hooks.js"
import type { PageHandle } from "./page-doc.js"
import { recentPages } from "./recent-pages.js"
import type { Session } from "./session.js"
import { useOutbox } from "./use-outbox.js"

/** Rows of a list that must not push around what is below it. */
const ROWS = 3

/** What the server does not have, what is kept on this device, and what became of each change. */
export function LedgerView({ session, handle, log }: { session: Session; handle: PageHandle; log: ChangeLog }) {
  const outbox = useOutbox(session)
  const changes = useSyncExternalStore(log.subscribe, log.get)
  const { unsavedChanges, state } = useSaveStatus(handle)
  const unsaved = unsavedOf(handle, changes, outbox, state === "savedOnDevice")
  const now = useNow(500, unsaved.length > 0 || unsavedChanges > 0)
  return (
    <>
      <Unsaved total={unsavedChanges} changes={unsaved} now={now} />
      <OutboxList handle={handle} outbox={outbox} />
      <Log changes={changes} />
    </>
  )
}

interface UnsavedChange {
  readonly hash: string
  readonly since: number
  readonly where: "in the outbox" | "in memory"
}

/** This page's changes without an acknowledgement: those of this tab, and those that earlier ones left. Oldest first. */
function unsavedOf(
  { documentId }: PageHandle,
  log: readonly LoggedChange[],
  outbox: readonly OutboxChange[],
  areAllStored: boolean
): UnsavedChange[] {
  const found = new Map<string, UnsavedChange>()
  const durable = new Set<string>()
  for (const { hash, madeAt, durableAfter } of log) {
    // The outbox is read a little later than the client knows what is in it.
    if (durableAfter === undefined) found.set(hash, { hash, since: madeAt, where: areAllStored ? "in the outbox" : "in memory" })
    else durable.add(hash)
  }
  for (const { hash, since, documentId: of } of outbox) {
    if (of === documentId && !durable.has(hash)) found.set(hash, { hash, since, where: "in the outbox" })
  }
  return [...found.values()].sort((a, b) => a.since - b.since)
}

function Unsaved({ total, changes, now }: { total: number; changes: readonly UnsavedChange[]; now: number }) {
  const count = Math.max(total, changes.length)
  const listed = changes.slice(0, count > ROWS ? ROWS - 1 : ROWS)
  const more = count - listed.length
  return (
    <section aria-labelledby="unsaved-title" className="unsaved">
      <h2 id="unsaved-title">
        Not on the server <span className="number">{count}</span>
      </h2>
      {count === 0 && <p className="quiet">Nothing. You could pull any plug now.</p>}
      <ul className="rows">
        {listed.map(({ hash, since, where }) => (
          <li key={hash}>
            <code>{hash.slice(0, 8)}</code>
            <span className="quiet">{where}</span>
            <span className="age">{age(now - since)}</span>
          </li>
        ))}
      </ul>
      {more > 0 && <p className="quiet">and {more} more</p>}
    </section>
  )
}

function OutboxList({ handle, outbox }: { handle: PageHandle; outbox: readonly OutboxChange[] }) {
  const byDocument = new Map<string, { count: number; bytes: number }>()
  for (const { documentId, bytes } of outbox) {
    const sum = byDocument.get(documentId) ?? { count: 0, bytes: 0 }
    byDocument.set(documentId, { count: sum.count + 1, bytes: sum.bytes + bytes.length })
  }
  const titles = new Map(recentPages().map(({ url, title }) => [url.replace(/^automerge:/, ""), title]))
  const nameOf = (id: string) => (id === handle.documentId ? "This page" : (titles.get(id) ?? `${id.slice(0, 8)}…`))
  return (
    <section aria-labelledby="outbox-title" className="outbox">
      <h2 id="outbox-title">
        Outbox on this device <span className="number">{outbox.length}</span>
      </h2>
      {byDocument.size === 0 && <p className="quiet">Empty. Changes wait here for the server.</p>}
      <ul className="rows">
        {[...byDocument].map(([id, { count, bytes }]) => (
          <li key={id}>
            <span className="name">{nameOf(id)}</span>
            <span className="quiet">{bytes} bytes</span>
            <span className="age">{count === 1 ? "1 change" : `${count} changes`}</span>
          </li>
        ))}
      </ul>
    </section>
  )
}

function Log({ changes }: { changes: readonly LoggedChange[] }) {
  const times = changes.flatMap(({ durableAfter = -1 }) => (durableAfter < 0 ? [] : [durableAfter])).sort((a, b) => a - b)
  const median = times[Math.floor(times.length / 2)]
  return (
    <section aria-labelledby="log-title" className="log">
      <h2 id="log-title">
        My changes {median !== undefined && <span className="quiet count">median {duration(median)}</span>}
      </h2>
      <div className="scroll" tabIndex={0} role="region" aria-labelledby="log-title">
        {changes.length === 0 ? (
          <p className="quiet">Type something.</p>
        ) : (
          <table>
            <thead>
              <tr>
                <th scope="col">Change</th>
                <th scope="col">Made</th>
                <th scope="col">Durable after</th>
              </tr>
            </thead>
            <tbody>
              {changes.map(change => (
                <tr key={change.hash}>
                  <td>
                    <code>{change.hash.slice(0, 8)}</code>
                  </td>
                  <td>{new Date(change.madeAt).toLocaleTimeString()}</td>
                  <td className="age">{outcome(change)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </div>
    </section>
  )
}

function outcome({ durableAfter, isRefused }: LoggedChange): string {
  if (isRefused) return "refused"
  return durableAfter === undefined ? "not yet" : duration(durableAfter)
}

function duration(ms: number): string {
  if (ms < 10) return `${ms.toFixed(1)} ms`
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`
}

function age(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  return seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`
}
