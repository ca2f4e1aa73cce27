import * as A from "@automerge/automerge/slim"
import type { HighwaterClientAdapter } from "@highwater/client"
import type { PageHandle } from "./page-doc.js"

/** A change that was made in this tab. */
export interface LoggedChange {
  readonly hash: string
  readonly madeAt: number
  /** How long it took until the server called it durable, if it has. */
  readonly durableAfter: number | undefined
  readonly isRefused: boolean
}

const MAX = 50

/** The newest changes of this tab, and when each of them became durable. */
export class ChangeLog {
  readonly #adapter: HighwaterClientAdapter
  readonly #handle: PageHandle
  /** One for each change that is shown: ends the waiting for it. */
  readonly #waits = new Map<string, AbortController>()
  readonly #listeners = new Set<() => void>()
  #heads: string[]
  #changes: readonly LoggedChange[] = []

  constructor(adapter: HighwaterClientAdapter, handle: PageHandle) {
    this.#adapter = adapter
    this.#handle = handle
    this.#heads = A.getHeads(handle.doc())
    handle.on("heads-changed", this.#look)
  }

  /** Newest first. */
  get = (): readonly LoggedChange[] => this.#changes

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  end(): void {
    this.#handle.off("heads-changed", this.#look)
    this.#waitOnlyFor(new Set())
  }

  readonly #look = (): void => {
    const doc = this.#handle.doc()
    const me = A.getActorId(doc)
    const own = A.getChangesMetaSince(doc, this.#heads).filter(({ actor }) => actor === me)
    this.#heads = A.getHeads(doc)
    for (const { hash } of own) this.#add(hash)
  }

  #add(hash: string): void {
    const madeAt = Date.now()
    const started = performance.now()
    const wait = new AbortController()
    this.#waits.set(hash, wait)
    this.#show([{ hash, madeAt, durableAfter: undefined, isRefused: false }, ...this.#changes].slice(0, MAX))
    this.#adapter.whenSaved(this.#handle, { signal: wait.signal }).then(
      () => this.#update(hash, { durableAfter: performance.now() - started }),
      error => this.#update(hash, { isRefused: error?.reason === "rejected" })
    )
  }

  #update(hash: string, news: Partial<LoggedChange>): void {
    if (!this.#waits.has(hash)) return
    this.#show(this.#changes.map(change => (change.hash === hash ? { ...change, ...news } : change)))
  }

  #show(changes: readonly LoggedChange[]): void {
    this.#changes = changes
    this.#waitOnlyFor(new Set(changes.map(({ hash }) => hash)))
    for (const listener of [...this.#listeners]) listener()
  }

  #waitOnlyFor(shown: ReadonlySet<string>): void {
    for (const [hash, wait] of this.#waits) {
      if (shown.has(hash)) continue
      this.#waits.delete(hash)
      wait.abort()
    }
  }
}
