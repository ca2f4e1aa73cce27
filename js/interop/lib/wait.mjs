// Waiting for things to happen. Nothing here polls: a condition is looked at again when an event says
// that it may have changed, and the only timer is the deadline that turns a hang into a failure.

const DEADLINE_MS = 60_000

/** The promise's result, or an error that says what was waited for. */
export function within(ms, what, promise) {
  let timer
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${what}`)), ms)
  })
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer))
}

/**
 * Resolves once `holds()` is true. It is looked at now and after each call of the function handed to
 * `subscribe`, which returns its own undo. `explain()` goes into the error if the deadline passes.
 */
export function until(what, subscribe, holds, { ms = DEADLINE_MS, explain = () => "" } = {}) {
  let undo = () => {}
  const held = new Promise((resolve, reject) => {
    let looking = false
    const look = () => {
      if (looking) return
      looking = true
      // After the emitter has finished its own work: some events come before the state they announce.
      setImmediate(() => {
        looking = false
        try {
          if (holds()) resolve()
        } catch (error) {
          reject(error)
        }
      })
    }
    undo = subscribe(look)
    look()
  })
  return within(ms, what, held)
    .catch(error => {
      const more = explain()
      if (more) error.message += `\n${more}`
      throw error
    })
    .finally(() => undo())
}

/** For `until`: look again when any of these emitters emits any of these events. */
export function events(emitters, ...names) {
  return look => {
    for (const emitter of emitters) for (const name of names) emitter.on(name, look)
    return () => {
      for (const emitter of emitters) for (const name of names) emitter.off(name, look)
    }
  }
}

/** Lets every other task of this process have a turn; used to spread edits over time. */
export const breath = (ms = 2) => new Promise(resolve => setTimeout(resolve, ms))
