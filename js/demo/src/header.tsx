import { useRef, useState, type ReactNode } from "react"
import { recentPages } from "./recent-pages.js"
import type { Person } from "./presence.js"

type Face = Pick<Person, "id" | "name" | "color">

const COPIED_MS = 2000

export interface HeaderProps {
  me?: Face
  people?: readonly Face[]
  children?: ReactNode
}

/** The bar at the top. */
export function Header({ me, people = [], children }: HeaderProps) {
  return (
    <header className="bar">
      <a className="brand" href="#" aria-label="Highwater: all pages">
        Highwater
      </a>
      <div className="status">{children}</div>
      {me && <People me={me} people={people} />}
      {me && <ShareButton />}
      <PagesMenu />
    </header>
  )
}

function People({ me, people }: { me: Face; people: readonly Face[] }) {
  return (
    <ul className="people" aria-label="People here">
      {[me, ...people].map((person, at) => (
        <li key={person.id} className={`face color-${person.color}`} title={at === 0 ? `${person.name} (you)` : person.name}>
          <span aria-hidden="true">{person.name.slice(0, 2)}</span>
          <span className="read-out">{at === 0 ? `${person.name} (you)` : person.name}</span>
        </li>
      ))}
    </ul>
  )
}

function ShareButton() {
  const [word, setWord] = useState("Share")
  const share = async () => {
    try {
      await navigator.clipboard.writeText(location.href)
      setWord("Copied")
    } catch {
      // Without a secure origin there is no clipboard; then people copy by hand.
      prompt("The address of this page:", location.href)
    }
    setTimeout(() => setWord("Share"), COPIED_MS)
  }
  return (
    <button type="button" className="button share" onClick={share} title="Copies the address of this page">
      <span aria-live="polite">{word}</span>
    </button>
  )
}

/** Other pages: a new one, and those that were open here. */
function PagesMenu() {
  const menu = useRef<HTMLDetailsElement>(null)
  const [isOpen, setIsOpen] = useState(false)
  const close = () => {
    if (menu.current) menu.current.open = false
  }
  return (
    <details
      ref={menu}
      className="menu"
      onToggle={() => setIsOpen(menu.current!.open)}
      onKeyDown={({ key }) => key === "Escape" && close()}
      onBlur={({ relatedTarget }) => !menu.current!.contains(relatedTarget) && close()}
    >
      <summary className="button">Pages</summary>
      {isOpen && (
        <nav aria-label="Pages" onClick={close}>
          <a className="new" href="#new">
            New page
          </a>
          <RecentList />
        </nav>
      )}
    </details>
  )
}

/** The pages that were open on this device. */
export function RecentList() {
  return (
    <ul className="recent">
      {recentPages().map(({ url, title }) => (
        <li key={url}>
          <a href={`#${url}`}>{title}</a>
        </li>
      ))}
    </ul>
  )
}
