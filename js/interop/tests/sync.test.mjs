// What people do with a sync server, with the newest and the oldest client there is.

import { join } from "node:path"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { describe, expect } from "vitest"
import { converged, newest, oldest, versions } from "../lib/clients.mjs"
import { breath, events, until } from "../lib/wait.mjs"
import { test } from "../lib/world.mjs"

describe.each(versions)("$name", version => {
  test("a document created by one client is found by another, and both edit it", async ({ world }) => {
    const [alice, bob] = [await world.client(version), await world.client(version)]
    const hers = alice.create({ title: "tide table" })
    await alice.saved(hers)

    const his = await bob.find(hers.url)
    expect(bob.doc(his)).toEqual({ title: "tide table" })

    his.change(doc => (doc.by = "bob"))
    await converged([[alice, hers], [bob, his]], doc => doc.by === "bob")
  })

  test("concurrent edits of ten repos converge", async ({ world }) => {
    const clients = await Promise.all(Array.from({ length: 10 }, () => world.client(version)))
    const first = clients[0].create({ list: [] })
    await clients[0].saved(first)
    const handles = await Promise.all(
      clients.map((client, i) => (i === 0 ? first : client.find(first.url)))
    )
    const rounds = 15
    for (let round = 0; round < rounds; round++) {
      handles.forEach((handle, i) =>
        handle.change(doc => {
          doc.list.push(`${i}.${round}`)
          doc[`own${i}`] = round
          doc.shared = `${i}.${round}`
        })
      )
      await breath()
    }
    const complete = doc => doc.list.length === 10 * rounds
    await converged(clients.map((client, i) => [client, handles[i]]), complete)
    const seen = new Set(clients[0].doc(first).list)
    expect(seen.size).toBe(10 * rounds)
  })

  test("a late joiner gets everything after the writers have left and the server was restarted", async ({ world }) => {
    const [alice, bob] = [await world.client(version), await world.client(version)]
    const hers = alice.create({ lines: [] })
    await alice.saved(hers)
    const his = await bob.find(hers.url)
    for (let i = 0; i < 20; i++) {
      hers.change(doc => doc.lines.push(`alice ${i}`))
      his.change(doc => doc.lines.push(`bob ${i}`))
      await breath()
    }
    await converged([[alice, hers], [bob, his]], doc => doc.lines.length === 40)
    await alice.saved(hers)
    const expected = alice.doc(hers).lines.slice()
    alice.close()
    bob.close()

    const joiner = await world.client(version)
    expect(joiner.doc(await joiner.find(hers.url)).lines).toEqual(expected)
    joiner.close()

    expect(await world.server.stop()).toEqual({ code: 0, signal: null })
    await world.server.start()
    const later = await world.client(version)
    expect(later.doc(await later.find(hers.url)).lines).toEqual(expected)
  })

  test("a document nobody has is unavailable within a second, and ready once somebody brings it", async ({ world }) => {
    const line = await world.line()
    line.cut()
    const author = world.absentClient(version, { url: line.url })
    const written = author.create({ text: "written offline" })

    const reader = await world.client(version)
    const asked = performance.now()
    await expect(reader.find(written.url)).rejects.toThrow(/unavailable/)
    expect(performance.now() - asked).toBeLessThan(1000)

    const handle = reader.known(written.url)
    line.mend()
    await author.connected()
    await until("the document to become ready", events([handle], "heads-changed"), () => handle.isReady())
    expect(reader.doc(handle)).toEqual({ text: "written offline" })
  })

  test("ephemeral messages reach everyone who has the document open, in order, and nobody else", async ({ world }) => {
    const [alice, bob, carol, dave] = await Promise.all([1, 2, 3, 4].map(() => world.client(version)))
    const [one, two] = [alice.create({ n: 1 }), alice.create({ n: 2 })]
    await alice.saved(one, two)
    const [bobs, carols, daves] = [await bob.find(one.url), await carol.find(one.url), await dave.find(two.url)]
    const heard = { bob: [], carol: [], dave: [], strayForDave: 0 }
    bobs.on("ephemeral-message", ({ message }) => heard.bob.push(message.cursor))
    carols.on("ephemeral-message", ({ message }) => heard.carol.push(message.cursor))
    daves.on("ephemeral-message", ({ message }) => heard.dave.push(message.cursor))
    dave.network.on("message", message => {
      if (message.type === "ephemeral" && message.documentId === one.documentId) heard.strayForDave++
    })

    const cursors = Array.from({ length: 25 }, (_, i) => i)
    for (const cursor of cursors) one.broadcast({ cursor })
    two.broadcast({ cursor: "last" })

    await until(
      "the ephemeral messages",
      events([bobs, carols, daves], "ephemeral-message"),
      () => heard.bob.length === 25 && heard.carol.length === 25 && heard.dave.length === 1,
      { explain: () => JSON.stringify(heard) }
    )
    expect(heard).toEqual({ bob: cursors, carol: cursors, dave: ["last"], strayForDave: 0 })
  })

  test("edits made offline on both sides meet after the reconnect", async ({ world }) => {
    const { client: alice, line } = await world.clientOnLine(version)
    const bob = await world.client(version)
    const hers = alice.create({ words: [] })
    await alice.saved(hers)
    const his = await bob.find(hers.url)

    for (let outage = 0; outage < 3; outage++) {
      line.cut()
      await alice.disconnected()
      for (let i = 0; i < 10; i++) {
        hers.change(doc => doc.words.push(`alice ${outage}.${i}`))
        his.change(doc => doc.words.push(`bob ${outage}.${i}`))
      }
      await bob.saved(his)
      line.mend()
      await converged([[alice, hers], [bob, his]], doc => doc.words.length === (outage + 1) * 20)
    }
    await alice.saved(hers)
  })

  test("a document of 20,000 changes goes up and comes down", async ({ world }) => {
    const author = await world.client(version)
    const { Automerge } = author
    let doc = Automerge.from({ count: 0 })
    for (let i = 1; i < 20_000; i++) doc = Automerge.change(doc, d => void (d.count = i))
    const up = author.createFrom(doc)
    await author.saved(up)
    author.close()

    const reader = await world.client(version)
    const down = await reader.find(up.url)
    await converged([[reader, down]], d => d.count === 19_999)
    expect(reader.Automerge.getAllChanges(reader.doc(down)).length).toBeGreaterThanOrEqual(20_000)
    expect(reader.Automerge.getHeads(reader.doc(down))).toEqual(Automerge.getHeads(author.doc(up)))

    down.change(d => (d.count = 20_000))
    await reader.saved(down)
    const other = await world.client(version)
    expect(other.doc(await other.find(up.url)).count).toBe(20_000)
  })

  test("a second repo with the same peer id displaces the first, which may come back", async ({ world }) => {
    const { client: first, line } = await world.clientOnLine(version, { peerId: "one-tab" })
    const bystander = await world.client(version)
    const hers = first.create({ notes: [] })
    await first.saved(hers)
    const seen = await bystander.find(hers.url)

    // A displaced client would come straight back and displace the other, for ever; this one sleeps.
    first.once("peer-disconnected", () => line.cut())
    const second = await world.client(version, { peerId: "one-tab" })
    await first.disconnected()

    const mine = await second.find(hers.url)
    mine.change(doc => doc.notes.push("second"))
    await converged([[second, mine], [bystander, seen]], doc => doc.notes.length === 1)
    seen.change(doc => doc.notes.push("bystander"))
    await converged([[second, mine], [bystander, seen]], doc => doc.notes.length === 2)

    hers.change(doc => doc.notes.push("first, asleep"))
    second.close()
    line.mend()
    await first.connected()
    await converged([[first, hers], [bystander, seen]], doc => doc.notes.length === 3)
  })
})

test("old and new clients edit one document together", async ({ world }) => {
  const clients = await Promise.all([newest, oldest, newest, oldest].map(version => world.client(version)))
  const first = clients[1].create({ list: [] })
  await clients[1].saved(first)
  const handles = await Promise.all(clients.map((client, i) => (i === 1 ? first : client.find(first.url))))
  for (let round = 0; round < 10; round++) {
    handles.forEach((handle, i) => handle.change(doc => doc.list.push(`${i}.${round}`)))
    await breath()
  }
  await converged(clients.map((client, i) => [client, handles[i]]), doc => doc.list.length === 40)
})

test("edits kept by a client's own storage while offline arrive after it is started again", async ({ world }) => {
  const folder = join(world.folder, "client")
  const line = await world.line()
  const before = await world.client(newest, { url: line.url, storage: new NodeFSStorageAdapter(folder) })
  const hers = before.create({ words: ["online"] })
  await before.saved(hers)
  line.cut()
  await before.disconnected()
  hers.change(doc => doc.words.push("offline"))
  await before.repo.flush()
  before.close()

  line.mend()
  const after = await world.client(newest, { storage: new NodeFSStorageAdapter(folder) })
  const again = await after.find(hers.url)
  await after.saved(again)
  const reader = await world.client(newest)
  expect(reader.doc(await reader.find(hers.url)).words).toEqual(["online", "offline"])
})

test("a client that subscribed to another's storage id hears of its heads", async ({ world }) => {
  const storage = new NodeFSStorageAdapter(join(world.folder, "alice"))
  const alice = await world.client(newest, { storage, gossip: true })
  const bob = await world.client(newest, { gossip: true })
  const aliceId = await alice.repo.storageId()
  const hers = alice.create({ n: 0 })
  await alice.saved(hers)
  const his = await bob.find(hers.url)

  bob.repo.subscribeToRemotes([aliceId])
  hers.change(doc => (doc.n = 1))
  const heardOf = () => his.getSyncInfo(aliceId)?.lastHeads.join() === hers.heads().join()
  await until("news of alice's heads", events([his], "remote-heads"), heardOf)
  expect(his.getSyncInfo(aliceId).lastHeads).toEqual(hers.heads())
})

test("the server keeps its peer id and storage id over a restart", async ({ world }) => {
  const identity = async () => {
    const client = await world.client(newest)
    const seen = [client.adapter.remotePeerId, client.storageIdOfServer()]
    client.close()
    return seen
  }
  const before = await identity()
  expect(before[1]).toBeTypeOf("string")
  await world.server.kill9()
  await world.server.start()
  expect(await identity()).toEqual(before)
})
