// Many rounds of all endings, with one client or with both.

import { BrowserStalledError } from "./app-page.mjs"
import { endings } from "./endings.mjs"
import { complaints, playRound } from "./round.mjs"
import { World } from "./world.mjs"

/** Plays rounds with each client. Calls back after each, with what Highwater's client has done wrong in it. */
export async function playRounds({ clients, names = Object.keys(endings), rounds, seed, isNew, onRound }) {
  const results = []
  for (const client of clients) {
    const world = await World.open(client)
    try {
      for (let round = 0; round < rounds; round++) {
        const name = names[round % names.length]
        const result = { client, ending: name, seed: seed + round, ...(await play(world, name, seed + round, isNew)) }
        results.push(result)
        onRound?.(result, client === "highwater" ? complaints(endings[name], result) : [])
      }
    } finally {
      await world.close()
    }
  }
  return results
}

async function play(world, name, seed, isNew, repeats = 1) {
  try {
    return await playRound(world, endings[name], seed, { isNew })
  } catch (error) {
    if (error instanceof BrowserStalledError && repeats > 0) {
      console.warn(`${world.client}, ${name}, seed ${seed}: ${error.message}; once more with another browser`)
      await world.profile.renew()
      return play(world, name, seed, isNew, repeats - 1)
    }
    error.message = `${world.client}, ${name}, seed ${seed}: ${error.message}\n${world.server.log}`
    throw error
  }
}
