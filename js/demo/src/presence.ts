import * as A from "@automerge/automerge/slim"
import type { PageHandle } from "./page-doc.js"

/** Where somebody's cursor is in the text. */
export interface Place {
  readonly anchor: number
  readonly head: number
}

/** Somebody else who has the page open. */
export interface Person {
  readonly id: string
  readonly name: string
  readonly color: number
  readonly place: Place | undefined
}

interface Hello extends Person {
  readonly type: "presence"
  /** What the text was when the place was taken. */
  readonly heads: string[]
  readonly isLeaving?: boolean
}

export const COLORS = 6
const NAMES = ["Heron", "Otter", "Curlew", "Plover", "Seal", "Tern", "Eider", "Avocet", "Dunlin", "Puffin", "Egret", "Sanderling"]
const HELLO_MS = 4000
const GONE_MS = 12_000
const MOVE_MS = 60

/** Tells the others where this tab's cursor is, and hears where theirs are. Nothing of it is stored. */
export class Presence {
  readonly me: Omit<Person, "place"> = introduce()
  readonly #handle: PageHandle
  readonly #listeners = new Set<() => void>()
  readonly #seen = new Map<string, { person: Person; at: number }>()
  /** What is said overtakes what is stored: these places are in a text that has not come yet. */
  readonly #early = new Map<string, Hello>()
  readonly #timer: ReturnType<typeof setInterval>
  #people: readonly Person[] = []
  #place: Place | undefined
  #soon: ReturnType<typeof setTimeout> | undefined

  constructor(handle: PageHandle) {
    this.#handle = handle
    handle.on("ephemeral-message", this.#hear)
    handle.on("change", this.#catchUpSoon)
    this.#timer = setInterval(() => this.#tick(), HELLO_MS)
    window.addEventListener("pagehide", this.#leave)
    window.addEventListener("pageshow", this.#say)
    this.#say()
  }

  /** The others. */
  get = (): readonly Person[] => this.#people

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** This tab's cursor is there now, or not in the text. */
  move(place: Place | undefined): void {
    this.#place = place
    this.#soon ??= setTimeout(this.#say, MOVE_MS)
  }

  end(): void {
    clearInterval(this.#timer)
    clearTimeout(this.#soon)
    this.#leave()
    this.#handle.off("ephemeral-message", this.#hear)
    this.#handle.off("change", this.#catchUpSoon)
    window.removeEventListener("pagehide", this.#leave)
    window.removeEventListener("pageshow", this.#say)
  }

  readonly #say = (): void => {
    this.#soon = undefined
    this.#broadcast(false)
  }

  readonly #leave = (): void => this.#broadcast(true)

  #broadcast(isLeaving: boolean): void {
    const heads = A.getHeads(this.#handle.doc())
    const hello: Hello = { type: "presence", ...this.me, place: this.#place, heads, isLeaving }
    this.#handle.broadcast(hello)
  }

  readonly #hear = ({ message }: { message: unknown }): void => {
    const hello = message as Hello
    if (hello?.type !== "presence" || typeof hello.id !== "string" || hello.id === this.me.id) return
    const isNew = !this.#seen.has(hello.id)
    if (hello.isLeaving) this.#forget(hello.id)
    else this.#see(hello)
    this.#changed()
    // They cannot know of us yet.
    if (isNew && !hello.isLeaving) this.#say()
  }

  #see(hello: Hello): void {
    const person = personOf(hello)
    const before = this.#seen.get(hello.id)?.person ?? { ...person, place: undefined }
    const isEarly = person.place !== undefined && !isHere(this.#handle, hello.heads)
    if (isEarly) this.#early.set(hello.id, hello)
    else this.#early.delete(hello.id)
    this.#seen.set(hello.id, { person: isEarly ? before : person, at: Date.now() })
  }

  #forget(id: string): void {
    this.#seen.delete(id)
    this.#early.delete(id)
  }

  // A turn later: then the editor shows the change as well.
  readonly #catchUpSoon = (): void => void (this.#early.size > 0 && setTimeout(() => this.#catchUp()))

  #catchUp(): void {
    const arrived = [...this.#early.values()].filter(({ heads }) => isHere(this.#handle, heads))
    for (const hello of arrived) this.#see(hello)
    if (arrived.length > 0) this.#changed()
  }

  #tick(): void {
    this.#say()
    const before = this.#seen.size
    for (const [id, { at }] of this.#seen) if (Date.now() - at > GONE_MS) this.#forget(id)
    if (this.#seen.size !== before) this.#changed()
  }

  #changed(): void {
    this.#people = [...this.#seen.values()].map(({ person }) => person).sort((a, b) => (a.id < b.id ? -1 : 1))
    for (const listener of [...this.#listeners]) listener()
  }
}

function isHere(handle: PageHandle, heads: unknown): boolean {
  try {
    return A.hasHeads(handle.doc(), heads as string[])
  } catch {
    return false
  }
}

function introduce(): Omit<Person, "place"> {
  const below = (end: number) => Math.floor(Math.random() * end)
  return { id: crypto.getRandomValues(new Uint32Array(2)).join("-"), name: NAMES[below(NAMES.length)]!, color: below(COLORS) }
}

/** Takes from a message what can be shown, whoever wrote it. */
function personOf({ id, name, color, place }: Hello): Person {
  const isPlace = Number.isInteger(place?.anchor) && Number.isInteger(place?.head)
  return {
    id,
    name: String(name).slice(0, 24),
    color: Math.abs(Math.trunc(Number(color) || 0)) % COLORS,
    place: isPlace ? { anchor: place!.anchor, head: place!.head } : undefined,
  }
}
