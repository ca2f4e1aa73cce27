import type { Environment } from "./environment.js"

/**
 * Where somebody's changes are.
 *
 * - `saved`: the server has called all of them durable.
 * - `saving`: they are on their way, on a connection that works.
 * - `savedOnDevice`: there is no connection; they are stored on this device and will be sent later.
 * - `notSaved`: there is no connection, and they are only in memory.
 * - `rejected`: the server refused at least one of them and will never take it.
 */
export type SaveState = "saved" | "saving" | "savedOnDevice" | "notSaved" | "rejected"

/** An unchanging picture of where changes are. A new one is made when something changes. */
export interface SaveStatus {
  /** The word for it. */
  readonly state: SaveState
  /** How many changes the server has not called durable, as far as that is known. */
  readonly unsavedChanges: number
  /** When the oldest of them was made, in milliseconds since 1970. */
  readonly unsavedSince: number | undefined
  /** How old the oldest of them is now, in milliseconds; 0 if there is none. */
  readonly oldestUnsavedAge: number
}

/** What can be asked for a save status: the repo's adapter, or a plain document. */
export interface SaveStatusSource {
  /** The status of one document, or of all. The same object until something changes. */
  saveStatus(documentId?: string): SaveStatus
  /** Calls back whenever a status may have changed. Returns its own undo. */
  onSaveStatus(listener: () => void): () => void
  /** Timers for those who show a status. The default is the platform's. */
  readonly timers?: Timers
}

/** The part of an environment that lets something wait. */
export type Timers = Pick<Environment, "setTimeout" | "clearTimeout">

/** What a status is made of. */
export interface StatusFacts {
  readonly unsavedChanges: number
  readonly unsavedSince: number | undefined
  readonly isSaved: boolean
  readonly isRejected: boolean
  readonly isStored: boolean
}

/** The status for these facts. */
export function statusOf(facts: StatusFacts, isConnected: boolean, now: () => number): SaveStatus {
  return makeStatus(wordFor(facts, isConnected), facts.unsavedChanges, facts.unsavedSince, now)
}

function wordFor(facts: StatusFacts, isConnected: boolean): SaveState {
  if (facts.isRejected) return "rejected"
  if (facts.isSaved) return "saved"
  if (isConnected) return "saving"
  return facts.isStored ? "savedOnDevice" : "notSaved"
}

/** Worst first. */
const ORDER: SaveState[] = ["rejected", "notSaved", "savedOnDevice", "saving", "saved"]

/** The status of several documents together: the worst of their words. */
export function overallStatus(all: Iterable<SaveStatus>, now: () => number): SaveStatus {
  let state: SaveState = "saved"
  let unsavedChanges = 0
  let unsavedSince: number | undefined
  for (const one of all) {
    if (ORDER.indexOf(one.state) < ORDER.indexOf(state)) state = one.state
    unsavedChanges += one.unsavedChanges
    if (one.unsavedSince !== undefined) unsavedSince = Math.min(one.unsavedSince, unsavedSince ?? Infinity)
  }
  return makeStatus(state, unsavedChanges, unsavedSince, now)
}

function makeStatus(
  state: SaveState,
  unsavedChanges: number,
  unsavedSince: number | undefined,
  now: () => number
): SaveStatus {
  return Object.freeze({
    state,
    unsavedChanges,
    unsavedSince,
    get oldestUnsavedAge() {
      return unsavedSince === undefined ? 0 : Math.max(0, now() - unsavedSince)
    },
  })
}

/** Whether two statuses say the same. */
export function sameStatus(a: SaveStatus | undefined, b: SaveStatus): boolean {
  return (
    a !== undefined &&
    a.state === b.state &&
    a.unsavedChanges === b.unsavedChanges &&
    a.unsavedSince === b.unsavedSince
  )
}
