// A clock that stands still until a test moves it, for the package, automerge-repo and the fake server alike.
// vitest's own fake timers wait a real millisecond for every timer; thousands of schedules need a faster one.

import { onTestFinished } from "vitest"

interface Timer {
  at: number
  order: number
  callback: () => void
  every: number | undefined
}

const real = { setTimeout, clearTimeout, setInterval, clearInterval, now: Date.now, immediate: setImmediate }
let timers = new Map<number, Timer>()
let now = 0
let count = 0

function add(callback: () => void, ms = 0, every?: number): any {
  const id = ++count
  timers.set(id, { at: now + Math.max(ms, 0), order: id, callback, every })
  return id
}

/** Stops the clock until the end of the test. */
export function useFakeTime(): void {
  now = real.now()
  timers = new Map()
  Object.assign(globalThis, {
    setTimeout: (callback: (...args: any[]) => void, ms?: number, ...args: any[]) => add(() => callback(...args), ms),
    clearTimeout: (id: number) => void timers.delete(id),
    setInterval: (callback: () => void, ms: number) => add(callback, ms, ms),
    clearInterval: (id: number) => void timers.delete(id),
  })
  Date.now = () => now
  onTestFinished(() => {
    Object.assign(globalThis, {
      setTimeout: real.setTimeout,
      clearTimeout: real.clearTimeout,
      setInterval: real.setInterval,
      clearInterval: real.clearInterval,
    })
    Date.now = real.now
  })
}

/** Forgets every timer, so that what an earlier schedule left running ends. */
export function forgetTimers(): void {
  timers.clear()
}

/** Lets so much time pass, and everything happen that is due in it. */
export async function pass(ms: number): Promise<void> {
  const end = now + ms
  await settle()
  for (let due = nextDue(end); due !== undefined; due = nextDue(end)) {
    const timer = timers.get(due)!
    now = Math.max(now, timer.at)
    if (timer.every === undefined) timers.delete(due)
    else timer.at = now + timer.every
    timer.callback()
    await settle()
  }
  now = end
}

/** Lets every promise that can go on go on. */
function settle(): Promise<void> {
  return new Promise(resolve => real.immediate(resolve))
}

function nextDue(end: number): number | undefined {
  let first: number | undefined
  let earliest: Timer | undefined
  for (const [id, timer] of timers) {
    if (timer.at > end) continue
    if (earliest && (timer.at > earliest.at || (timer.at === earliest.at && timer.order > earliest.order))) continue
    first = id
    earliest = timer
  }
  return first
}
