// Random rounds with both clients, and a table of what came of them.
//
//   node scripts/rounds.mjs [--rounds 200] [--client highwater|stock] [--ending "tab closed"]
//
// HIGHWATER_SEED repeats a run. Exit code 1 if Highwater's client broke a promise.

import { parseArgs } from "node:util"
import { endings } from "../lib/endings.mjs"
import { seedOfRun } from "../lib/random.mjs"
import { complaints, playRound } from "../lib/round.mjs"
import { arrivals, tableOf } from "../lib/table.mjs"
import { World } from "../lib/world.mjs"

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    client: { type: "string" },
    ending: { type: "string" },
  },
})

const seed = seedOfRun()
const rounds = Number(options.rounds)
const clients = options.client ? [options.client] : ["highwater", "stock"]
const names = options.ending ? [options.ending] : Object.keys(endings)
console.log(`seed ${seed}`)

const results = []
for (const client of clients) {
  const world = await World.open(client)
  for (let round = 0; round < rounds; round++) await play(world, round)
  await world.close()
}
console.log(tableOf(results))
for (const ending of names) {
  for (const client of clients) {
    console.log(`${ending}, ${client}: ${arrivals(results.filter(r => r.client === client && r.ending === ending))}`)
  }
}

async function play(world, round) {
  const { client } = world
  const ending = names[round % names.length]
  const seedOfRound = seed + round
  try {
    const result = await playRound(world, endings[ending], seedOfRound)
    results.push({ client, ending, ...result })
    const wrong = client === "highwater" ? complaints(endings[ending], result) : []
    if (wrong.length > 0) process.exitCode = 1
    console.log(`${client} ${round} ${ending} ${JSON.stringify(result)} ${wrong.join("; ")}`)
  } catch (error) {
    process.exitCode = 1
    console.error(`${client} ${round} ${ending}, seed ${seedOfRound}:`, error)
    console.error(world.server.log)
    throw error
  }
}
