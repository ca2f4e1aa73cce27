// Peers that misbehave harm nobody but themselves.

import { randomBytes } from "node:crypto"
import { once } from "node:events"
import { connect } from "node:net"
import * as Automerge from "@automerge/automerge"
import { Encoder } from "cbor-x"
import { describe, expect } from "vitest"
import { WebSocket } from "ws"
import { converged } from "../lib/clients.mjs"
import { within } from "../lib/wait.mjs"
import { full, test } from "../lib/world.mjs"

const cbor = new Encoder({ tagUint8Array: false, useRecords: false })
const STRANGER = "stranger"

const join = (fields = {}) =>
  cbor.encode({ type: "join", senderId: STRANGER, peerMetadata: {}, supportedProtocolVersions: ["1"], ...fields })

/** A raw socket that never throws and knows how it ended. */
async function rawSocket(url) {
  const socket = new WebSocket(url)
  socket.ended = new Promise(resolve => socket.once("close", (code, reason) => resolve({ code, reason: `${reason}` })))
  socket.on("error", () => {})
  await once(socket, "open")
  return socket
}

async function joined(url, peerId = STRANGER) {
  const socket = await rawSocket(url)
  const answer = once(socket, "message")
  socket.send(join({ senderId: peerId }))
  const [data] = await within(2000, "an answer to join", answer)
  const peer = cbor.decode(data)
  expect(peer.type).toBe("peer")
  return { socket, serverId: peer.senderId }
}

/** Two honest clients with a document between them, and a check that they noticed nothing. */
async function honestPair(world) {
  const [alice, bob] = [await world.client(), await world.client()]
  const hers = alice.create({ n: 0 })
  await alice.saved(hers)
  const his = await bob.find(hers.url)
  let drops = 0
  for (const client of [alice, bob]) client.on("peer-disconnected", () => drops++)
  let n = 0
  const stillWell = async () => {
    n += 1
    hers.change(doc => (doc.n = n))
    await converged([[alice, hers], [bob, his]], doc => doc.n === n)
    n += 1
    his.change(doc => (doc.n = n))
    await converged([[alice, hers], [bob, his]], doc => doc.n === n)
    expect(drops).toBe(0)
  }
  return { handle: hers, stillWell }
}

describe("frames that are no message of the protocol end the connection they came on, and nothing else", () => {
  const frames = {
    "a text frame": "hello",
    "random bytes": randomBytes(512),
    "an empty frame": Buffer.alloc(0),
    "half a message": join().subarray(0, 20),
    "a number": cbor.encode(7),
    "a list": cbor.encode(["join"]),
    "a map that claims four billion entries": Buffer.from([0xba, 0xff, 0xff, 0xff, 0xff, 0x01]),
    "nested a million deep": Buffer.alloc(1_000_000, 0x81),
  }
  for (const [name, frame] of Object.entries(frames)) {
    test(name, async ({ world }) => {
      const { stillWell } = await honestPair(world)
      const before = await rawSocket(world.server.url)
      before.send(frame)
      await within(5000, "the end of a connection that never joined", before.ended)
      const { socket: after } = await joined(world.server.url)
      after.send(frame)
      await within(5000, "the end of a joined connection", after.ended)
      await stillWell()
    })
  }
})

describe("joins that cannot be answered end the connection", () => {
  const joins = {
    "no sender": join({ senderId: undefined }),
    "a sender that is a number": join({ senderId: 5 }),
    "a sender of a megabyte": join({ senderId: "x".repeat(1_000_000) }),
    "only a protocol from the future": join({ supportedProtocolVersions: ["99"] }),
    "metadata that is text": join({ peerMetadata: "storageId" }),
  }
  for (const [name, frame] of Object.entries(joins)) {
    test(name, async ({ world }) => {
      const { stillWell } = await honestPair(world)
      const socket = await rawSocket(world.server.url)
      socket.send(frame)
      await within(5000, "the end of the connection", socket.ended)
      await stillWell()
    })
  }
})

describe("bad content for a document leaves the document as it was", () => {
  const contents = {
    "random bytes": () => randomBytes(300),
    "a sync message cut short": () => Buffer.from([0x42, 0x05, 0x00]),
    "a sync message with a broken change": () =>
      Buffer.concat([Buffer.from([0x42, 0, 0, 0, 1, 60, 0x85, 0x6f, 0x4a, 0x83]), randomBytes(56)]),
    "a sync message that claims endless heads": () => Buffer.from([0x42, 0xff, 0xff, 0xff, 0xff, 0x0f]),
    "nothing": () => Buffer.alloc(0),
  }
  for (const [name, content] of Object.entries(contents)) {
    test(name, async ({ world }) => {
      const { handle, stillWell } = await honestPair(world)
      for (const type of ["sync", "request"]) {
        const { socket, serverId } = await joined(world.server.url)
        socket.send(
          cbor.encode({ type, senderId: STRANGER, targetId: serverId, documentId: handle.documentId, data: content() })
        )
        await within(5000, "the end of the connection", socket.ended)
        await stillWell()
      }
      const reader = await world.client()
      expect(reader.doc(await reader.find(handle.url))).toEqual({ n: 4 })
    })
  }

  test("a document id that is none", async ({ world }) => {
    const { stillWell } = await honestPair(world)
    for (const documentId of ["", "../../etc/passwd", "0OIl", "x".repeat(100_000), 12]) {
      const { socket, serverId } = await joined(world.server.url)
      const data = Buffer.from([0x42, 0, 0, 0, 0])
      socket.send(cbor.encode({ type: "request", senderId: STRANGER, targetId: serverId, documentId, data }))
      await within(5000, `the end of the connection (${documentId})`.slice(0, 80), socket.ended)
    }
    await stillWell()
  })
})

test("a peer is told what was wrong before its connection is closed", async ({ world }) => {
  const { socket } = await joined(world.server.url)
  const told = once(socket, "message")
  socket.send("hello")
  const [data] = await within(5000, "an error message", told)
  expect(cbor.decode(data)).toMatchObject({ type: "error", message: expect.stringContaining("text") })
  expect(await within(5000, "the end of the connection", socket.ended)).toMatchObject({ code: 1003 })
})

test("a peer that does not read is cut off, and holds nobody up", async ({ world }) => {
  const { stillWell } = await honestPair(world)
  const author = await world.client()
  const busy = author.create({ n: 0 })
  await author.saved(busy)
  const { socket, serverId } = await joined(world.server.url)
  const [, question] = Automerge.generateSyncMessage(Automerge.init(), Automerge.initSyncState())
  const answered = once(socket, "message")
  const { documentId } = busy
  socket.send(cbor.encode({ type: "request", senderId: STRANGER, targetId: serverId, documentId, data: question }))
  await within(5000, "an answer to the request", answered)

  socket.pause()
  const load = "x".repeat(500_000)
  for (let i = 0; i < 400; i++) busy.broadcast({ load })
  busy.change(doc => (doc.n = 1))
  await author.saved(busy)
  await stillWell()

  let received = 0
  socket.on("message", data => (received += data.length))
  socket.resume()
  await within(10_000, "the end of the connection", socket.ended)
  expect(received).toBeLessThan(400 * load.length)
  await stillWell()
})

test.runIf(full)("a peer that never joins is sent away", async ({ world }) => {
  const socket = await rawSocket(world.server.url)
  await within(45_000, "the end of the connection", socket.ended)
})

test("an unknown kind of message is ignored, as clients of a later release need it", async ({ world }) => {
  const { socket, serverId } = await joined(world.server.url)
  let ended = false
  socket.ended.then(() => (ended = true))
  socket.send(cbor.encode({ type: "from-the-future", senderId: STRANGER, targetId: serverId, extra: { deep: [1] } }))
  const pong = once(socket, "pong")
  socket.ping()
  await within(5000, "a pong", pong)
  expect(ended).toBe(false)
  socket.terminate()
})

test("a frame announced with 1 GiB is refused before it is sent", async ({ world }) => {
  const { stillWell } = await honestPair(world)
  const socket = connect({ port: world.server.port, host: "127.0.0.1" })
  socket.on("error", () => {})
  await once(socket, "connect")
  const ended = once(socket, "close")
  const key = randomBytes(16).toString("base64")
  socket.write(
    `GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`
  )
  const [head] = await within(5000, "the upgrade", once(socket, "data"))
  expect(`${head}`).toMatch(/^HTTP\/1\.1 101/)
  const announcement = Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4])
  socket.write(announcement)
  await within(5000, "the end of the connection", ended)
  await stillWell()
})

test("a flood of joins leaves honest clients alone", async ({ world }) => {
  const { stillWell } = await honestPair(world)
  const { socket } = await joined(world.server.url)
  for (let i = 0; i < 2000 && socket.readyState === WebSocket.OPEN; i++) socket.send(join({ senderId: `peer ${i % 7}` }))
  const crowd = await Promise.all(Array.from({ length: 100 }, () => joined(world.server.url, "same")))
  await stillWell()
  for (const { socket } of crowd) socket.terminate()
  socket.terminate()
  await stillWell()
})
