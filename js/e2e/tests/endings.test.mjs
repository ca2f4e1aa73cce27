// Whatever was shown as saved is on the server, however the page comes to its end.

import assert from "node:assert/strict"
import { test } from "node:test"
import { endings } from "../lib/endings.mjs"
import { seedOfRun } from "../lib/random.mjs"
import { playRounds } from "../lib/run.mjs"
import { tableOf } from "../lib/table.mjs"

const full = process.env.HIGHWATER_FULL === "1"
const count = Object.keys(endings).length
// The long run is at least 200 rounds, and the same for the stock parts to compare with.
const rounds = full ? count * Math.ceil(200 / count) : 2 * count

test(`${rounds} random rounds of all ends of a page`, context =>
  play(context, { clients: full ? ["highwater", "stock"] : ["highwater"], rounds }))

test("the same with documents that the page has just made", context =>
  play(context, { clients: ["highwater"], rounds: full ? 5 * count : count, isNew: true }))

async function play(context, options) {
  const seed = seedOfRun()
  context.diagnostic(`HIGHWATER_SEED=${seed}`)
  const wrong = []
  const results = await playRounds({
    ...options,
    seed,
    onRound: (result, complaints) => wrong.push(...complaints.map(one => `${result.ending}, seed ${result.seed}: ${one}`)),
  })
  console.log(tableOf(results))
  assert.deepEqual(wrong, [])
}
