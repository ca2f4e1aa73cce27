// Random numbers that a seed repeats.

/** A generator of numbers from 0 up to, not including, 1 (mulberry32). */
export function randomFrom(seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** A whole number from `low` to `high`, both included. */
export function between(random, low, high) {
  return low + Math.floor(random() * (high - low + 1))
}

/** One of these. */
export function oneOf(random, choices) {
  return choices[Math.floor(random() * choices.length)]
}

/** HIGHWATER_SEED, or a new one. */
export function seedOfRun() {
  const given = process.env.HIGHWATER_SEED
  return given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given)
}
