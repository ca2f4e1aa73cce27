/** How property tests run: HIGHWATER_SEED repeats a run, HIGHWATER_RUNS makes it longer or shorter. */
export function runs(byDefault: number): { numRuns: number; seed: number } {
  const seed = Number(process.env.HIGHWATER_SEED ?? Math.floor(Math.random() * 2 ** 31))
  const numRuns = Number(process.env.HIGHWATER_RUNS ?? byDefault)
  console.log(`${numRuns} runs with HIGHWATER_SEED=${seed}`)
  return { numRuns, seed }
}
