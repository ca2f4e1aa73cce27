// Random rounds with both clients, and a table of what came of them.
//
//   npm run rounds -- [--rounds 200] [--client highwater] [--ending "tab closed"] [--new]
//
// HIGHWATER_SEED repeats a run. Exit code 1 if Highwater's client broke a promise.

import { parseArgs } from "node:util"
import { seedOfRun } from "../lib/random.mjs"
import { playRounds } from "../lib/run.mjs"
import { tableOf } from "../lib/table.mjs"

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    client: { type: "string", multiple: true, default: ["highwater", "stock"] },
    ending: { type: "string", multiple: true },
    new: { type: "boolean", default: false },
  },
})

const seed = seedOfRun()
console.log(`HIGHWATER_SEED=${seed}`)
const results = await playRounds({
  clients: options.client,
  names: options.ending,
  rounds: Number(options.rounds),
  seed,
  isNew: options.new,
  onRound(result, wrong) {
    console.log(JSON.stringify(result), wrong.join("; "))
    if (wrong.length > 0) process.exitCode = 1
  },
})
console.log(tableOf(results))
