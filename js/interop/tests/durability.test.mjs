// The promise: what the server has acknowledged is there, whatever happens to the server.

import { describe, expect } from "vitest"
import { converged, newest, versions } from "../lib/clients.mjs"
import { breath, within } from "../lib/wait.mjs"
import { full, test } from "../lib/world.mjs"

/** Notes everything the server acknowledges to a client, and cuts the client off when the server goes. */
class Witness {
  acknowledged = new Map()

  constructor(client, line) {
    this.client = client
    client.on("ack", handle => handle && this.#note(handle))
    client.on("peer-disconnected", () => line.cut())
  }

  get count() {
    return [...this.acknowledged.values()].reduce((sum, { heads }) => sum + heads.size, 0)
  }

  #note(handle) {
    // Only what this client has as well can be looked up later by its plain hash.
    const doc = this.client.doc(handle)
    if (!doc || !this.client.isSaved(handle)) return
    const entry = this.acknowledged.get(handle.url) ?? { heads: new Set() }
    for (const hash of this.client.Automerge.getHeads(doc)) entry.heads.add(hash)
    this.acknowledged.set(handle.url, entry)
    this.client.emit("acknowledged")
  }
}

// When a message and the close of the socket reach automerge-repo 2.5 together, it takes in the message,
// fails to send its answer, and is left with a document that it cannot change any more.
const STUCK = /change an outdated document/

/** Edits a document that is about to lose its server; a client that got stuck by that has no more to say. */
function edit(handle, n) {
  try {
    handle.change(doc => (doc.n = n))
  } catch (error) {
    if (!STUCK.test(error.message)) throw error
  }
}

/** Opens every document with a fresh client and lists what was acknowledged and is not there. */
async function missing(world, witnesses) {
  const reader = await world.client(newest)
  const lost = []
  for (const { acknowledged } of witnesses) {
    for (const [url, { heads }] of acknowledged) {
      const doc = await reader.find(url).then(handle => reader.doc(handle), () => undefined)
      for (const hash of heads) {
        if (!doc || !reader.Automerge.hasHeads(doc, [hash])) lost.push({ url, hash, found: doc !== undefined })
      }
    }
  }
  reader.close()
  return lost
}

describe.each(versions)("$name", version => {
  test("kill -9 at the instant of an acknowledgement loses nothing acknowledged", async ({ world }) => {
    const rounds = full ? 200 : 15
    let acknowledgements = 0
    for (let round = 0; round < rounds; round++) {
      const fatalAck = 1 + (round % 5)
      const writers = await Promise.all([1, 2, 3].map(() => world.clientOnLine(version)))
      const witnesses = writers.map(({ client, line }) => new Witness(client, line))
      const handles = writers.map(({ client }) => client.create({ n: -1 }))
      let killed
      const died = new Promise(resolve => {
        const onAck = () => {
          const heard = witnesses.reduce((sum, witness) => sum + witness.count, 0)
          if (killed || heard < fatalAck) return
          killed = world.server.kill9()
          for (const { client, line } of writers) {
            client.close()
            line.cut()
          }
          resolve(killed)
        }
        for (const { client } of writers) client.on("acknowledged", onAck)
      })
      for (let i = 0; !killed && i < 10_000; i++) {
        for (const handle of handles) edit(handle, i)
        await breath(5)
      }
      await within(20_000, "the fatal acknowledgement", died)
      await Promise.all(writers.map(({ line }) => line.close()))

      await world.server.start()
      acknowledgements += witnesses.reduce((sum, witness) => sum + witness.count, 0)
      expect(await missing(world, witnesses), `round ${round}`).toEqual([])
    }
    expect(acknowledgements).toBeGreaterThanOrEqual(rounds)
  }, full ? 900_000 : 150_000)

  test("kill -9 and restart in the middle of edits: all converge, nothing is lost", async ({ world }) => {
    const writers = await Promise.all(Array.from({ length: 5 }, () => world.clientOnLine(version)))
    const [{ client: first }] = writers
    const original = first.create({ list: [] })
    await first.saved(original)
    const handles = await Promise.all(
      writers.map(({ client }, i) => (i === 0 ? original : client.find(original.url)))
    )
    const edits = 60
    let outage = Promise.resolve()
    for (let i = 0; i < edits; i++) {
      handles.forEach((handle, w) => handle.change(doc => doc.list.push(`${w}.${i}`)))
      await breath(10)
      if (i % 20 === 10) {
        await outage
        outage = world.server.kill9().then(() => world.server.start())
      }
    }
    await outage
    const pairs = writers.map(({ client }, i) => [client, handles[i]])
    await converged(pairs, doc => doc.list.length === edits * writers.length)
    await Promise.all(pairs.map(([client, handle]) => client.saved(handle)))
    const expected = [...first.doc(original).list]
    expect(new Set(expected).size).toBe(edits * writers.length)

    await world.server.kill9()
    for (const { client, line } of writers) {
      client.close()
      line.cut()
    }
    await world.server.start()
    const reader = await world.client(newest)
    expect(reader.doc(await reader.find(original.url)).list).toEqual(expected)
  })

  test("SIGTERM during edits: exit code 0, and everything acknowledged is there", async ({ world }) => {
    const rounds = full ? 40 : 4
    for (let round = 0; round < rounds; round++) {
      const writers = await Promise.all([1, 2, 3, 4].map(() => world.clientOnLine(version)))
      const witnesses = writers.map(({ client, line }) => new Witness(client, line))
      const handles = writers.map(({ client }) => client.create({ n: -1 }))
      let ended
      const onAck = () => {
        if (witnesses.every(witness => witness.count > round % 3)) ended ??= world.server.stop()
      }
      for (const { client } of writers) client.on("acknowledged", onAck)
      for (let i = 0; world.server.running && i < 10_000; i++) {
        for (const handle of handles) edit(handle, i)
        await breath(5)
      }
      expect(await ended, `round ${round}`).toEqual({ code: 0, signal: null })
      await Promise.all(writers.map(({ client }) => client.disconnected()))
      for (const { client, line } of writers) {
        client.close()
        await line.close()
      }

      await world.server.start()
      expect(await missing(world, witnesses), `round ${round}`).toEqual([])
    }
  }, full ? 600_000 : 150_000)

  test("clients outlive restarts of the server with their documents in order", async ({ world }) => {
    const writers = await Promise.all([1, 2, 3, 4].map(() => world.clientOnLine(version)))
    const handles = writers.map(({ client }) => client.create({ list: [] }))
    const restarts = full ? 20 : 4
    for (let round = 0; round < restarts; round++) {
      let ended
      for (let i = 0; i < 50; i++) {
        if (i === 20) ended = world.server.stop().then(() => world.server.start())
        for (const handle of handles) handle.change(doc => doc.list.push(`${round}.${i}`))
        await breath(5)
      }
      await ended
      await Promise.all(writers.map(({ client }, w) => client.saved(handles[w])))
    }
    const reader = await world.client(newest)
    for (const handle of handles) {
      expect(reader.doc(await reader.find(handle.url)).list).toHaveLength(restarts * 50)
    }
  }, 300_000)
})
