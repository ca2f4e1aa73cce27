import { randomBytes } from "node:crypto"
import { cbor } from "@automerge/automerge-repo"
import { describe, expect, it } from "vitest"
import { UnsavedChangesError } from "../src/index.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { hashesOf, MemoryStore, participant } from "./fake/world.js"

describe("save status", () => {
  it("goes from not saved over saving to saved, and counts", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo } = participant(server)
    const handle = repo.create({ n: 0 })
    expect(adapter.saveStatus(handle)).toMatchObject({ state: "notSaved", unsavedChanges: 1 })
    await pass(20)
    expect(adapter.saveStatus(handle)).toMatchObject({ state: "saving", unsavedChanges: 1 })
    await pass(1000)
    expect(adapter.saveStatus(handle)).toMatchObject({ state: "saved", unsavedChanges: 0, unsavedSince: undefined })
    expect(adapter.saveStatus()).toMatchObject({ state: "saved", unsavedChanges: 0 })
  })

  it("says how old the oldest unsaved change is", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo, line } = participant(server)
    line.mode = "refused"
    const handle = repo.create({ n: 0 })
    await pass(3000)
    handle.change((doc: any) => (doc.n = 1))
    expect(adapter.saveStatus(handle).oldestUnsavedAge).toBe(3000)
    expect(adapter.saveStatus().oldestUnsavedAge).toBe(3000)
  })

  it("is savedOnDevice offline once the outbox has it, and notSaved if the outbox fails", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { adapter, repo, line } = participant(server, { outbox })
    line.mode = "refused"
    const handle = repo.create({ n: 0 })
    await pass(10)
    expect(adapter.saveStatus(handle).state).toBe("savedOnDevice")
    outbox.isBroken = true
    handle.change((doc: any) => (doc.n = 1))
    await pass(10)
    expect(adapter.saveStatus(handle)).toMatchObject({ state: "notSaved", unsavedChanges: 2 })
    outbox.isBroken = false
    await pass(1000)
    expect(adapter.saveStatus(handle).state).toBe("savedOnDevice")
    expect(outbox.hashes(handle.documentId)).toEqual(hashesOf(handle))
  })

  it("is rejected with the server's reason, and whenSaved and close say so", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.refuses = ({ message }) => message === "bad"
    const { adapter, repo } = participant(server)
    const handle = repo.create({ n: 0 })
    await pass(500)
    handle.change((doc: any) => (doc.n = 1), { message: "bad" })
    const [, bad] = hashesOf(handle)
    const failure = adapter.whenSaved(handle).catch(error => error)
    await pass(500)
    expect(adapter.saveStatus(handle).state).toBe("rejected")
    const rejected = [{ hash: bad, reason: "refused by the test" }]
    expect(await failure).toMatchObject({ reason: "rejected", documents: [{ hashes: [bad], rejected }] })
    const closing = await adapter.close().catch(error => error)
    expect(closing).toBeInstanceOf(UnsavedChangesError)
  })

  it("is right while somebody else edits without pause", async () => {
    useFakeTime()
    const server = new FakeServer()
    const [alice, bob] = [participant(server), participant(server)]
    const hers = alice.repo.create<any>({ n: 0 })
    await pass(500)
    const finding = bob.repo.find<any>(hers.url)
    await pass(500)
    const his = await finding
    const busy = setInterval(() => his.change(doc => (doc.m = (doc.m ?? 0) + 1)), 3)
    await pass(50)
    hers.change(doc => (doc.n = 1))
    let isSaved = false
    void alice.adapter.whenSaved(hers).then(() => (isSaved = true))
    await pass(100)
    clearInterval(busy)
    expect(isSaved).toBe(true)
    await pass(1000)
    expect(alice.adapter.saveStatus().state).toBe("saved")
    expect(bob.adapter.saveStatus().state).toBe("saved")
  })

  it("counts nothing durable any more if another server answers", async () => {
    useFakeTime()
    const [first, second] = [new FakeServer(), new FakeServer()]
    second.storageId = "another"
    const { adapter, repo, line } = participant(first)
    const handle = repo.create({ n: 0 })
    await pass(500)
    expect(adapter.saveStatus(handle).state).toBe("saved")
    first.kill()
    ;(line as { acceptor: unknown }).acceptor = { ...proxy(second, line) }
    line.mode = "up"
    await pass(1000)
    expect(second.hashes(handle.documentId)).toEqual(new Set(hashesOf(handle)))
    expect(adapter.saveStatus(handle).state).toBe("saved")
  })
})

/** Lets a server accept sockets of a line that is another's. */
function proxy(server: FakeServer, line: any) {
  const own = server.line()
  return {
    accept: (socket: any) => {
      own.sockets.add(socket)
      line.sockets.add(socket)
      server.accept(socket)
    },
    receive: (socket: any, data: any) => server.receive(socket, data),
    gone: (socket: any) => server.gone(socket),
  }
}

describe("sending", () => {
  it("does not wait for the 100 ms that automerge-repo collects changes", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo } = participant(server)
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    for (let n = 1; n <= 20; n++) {
      handle.change(doc => (doc.n = n))
      // There, onto the disk, and back again.
      await pass(5 + 1 + 5 + 1)
      expect(adapter.saveStatus(handle).state).toBe("saved")
    }
  })

  it("works with a server that knows no extensions", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.extended = false
    const { adapter, repo } = participant(server)
    const handle = repo.create<any>({ n: 0 })
    await pass(500)
    handle.change(doc => (doc.n = 1))
    await pass(500)
    expect(adapter.saveStatus(handle).state).toBe("saved")
    const closing = adapter.close()
    await pass(100)
    await closing
  })

  it("does not wait for the outbox, which has a change until the server has it", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { repo } = participant(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    await pass(500)
    outbox.writeMs = 5000
    handle.change(doc => (doc.n = 1))
    await pass(100)
    expect(server.hashes(handle.documentId).size).toBe(2)
    await pass(15_000)
    expect(outbox.hashes(handle.documentId)).toEqual([])
  })
})

/** These of the clients' messages do not reach the server. Returns its own undo. */
function lose(server: FakeServer, isLost: (message: any) => boolean): () => void {
  const receive = server.receive.bind(server)
  server.receive = (socket, data) => {
    if (!isLost(cbor.decode<any>(data as Uint8Array))) receive(socket, data)
  }
  return () => (server.receive = receive)
}

const isSync = ({ type }: any) => type === "sync"

/** A client that may post, with a document that is saved. */
async function poster(fetch?: () => Promise<never>) {
  useFakeTime()
  const server = new FakeServer()
  const line = server.line()
  const { adapter, repo } = participant(server, { line, more: { fetch: fetch ?? server.fetch(line) } })
  const handle = repo.create<any>({ n: 0 })
  await pass(500)
  return { server, adapter, handle }
}

describe("a change that the server goes on lacking", () => {
  it("is posted, whatever the sync protocol takes it for", async () => {
    const { server, adapter, handle } = await poster()
    const restore = lose(server, isSync)
    handle.change(doc => (doc.n = 1))
    await pass(1000)
    restore()
    await pass(60_000)
    expect(server.requests).toHaveLength(1)
    expect(adapter.saveStatus(handle).state).toBe("saved")
    adapter.disconnect()
  })
})

describe("a post of what the server goes on lacking", () => {
  it("comes also while others are busy", async () => {
    useFakeTime()
    const server = new FakeServer()
    const line = server.line()
    const { adapter, repo } = participant(server, { line, more: { fetch: server.fetch(line) } })
    const other = participant(server)
    const [handle, shared] = [repo.create<any>({ n: 0 }), repo.create<any>({ n: 0 })]
    await pass(500)
    const finding = other.repo.find<any>(shared.url)
    await pass(500)
    const theirs = await finding
    const busy = setInterval(() => theirs.change(doc => (doc.n += 1)), 1000)
    lose(server, message => isSync(message) && message.documentId === handle.documentId)
    handle.change(doc => (doc.n = 1))
    await pass(60_000)
    clearInterval(busy)
    expect(adapter.saveStatus(handle).state).toBe("saved")
    for (const one of [adapter, other.adapter]) one.disconnect()
  })

  it("is not made again while one is on its way", async () => {
    let posted = 0
    const { server, adapter, handle } = await poster(() => {
      posted += 1
      return new Promise<never>(() => {})
    })
    lose(server, isSync)
    handle.change(doc => (doc.n = 1))
    await pass(100_000)
    expect(posted).toBe(1)
    server.closeAll(1006)
    await pass(100_000)
    expect(posted).toBe(2)
    adapter.disconnect()
  })

  it("has one change at least, however large", async () => {
    const { server, adapter, handle } = await poster()
    lose(server, isSync)
    handle.change(doc => (doc.bytes = new Uint8Array(randomBytes(1024 * 1024 + 1))))
    handle.change(doc => (doc.n = 1))
    await pass(60_000)
    expect(adapter.saveStatus(handle).state).toBe("saved")
    adapter.disconnect()
  })
})

describe("changes of several documents that the server goes on lacking", () => {
  /** These documents' changes do not reach the server by the sync protocol. */
  async function notSent(count: number) {
    useFakeTime()
    const server = new FakeServer()
    server.refuses = ({ message }) => message === "bad"
    const line = server.line()
    const { adapter, repo } = participant(server, { line, more: { fetch: server.fetch(line) } })
    const handles = Array.from({ length: count }, () => repo.create<any>({ n: 0 }))
    await pass(1000)
    handles[0]!.change(doc => (doc.n = 1), { message: "bad" })
    await pass(100)
    expect(adapter.saveStatus(handles[0]).state).toBe("rejected")
    let asked = 0
    lose(server, message => {
      if (message.type === "highwater-have") asked += 1
      return isSync(message)
    })
    for (const handle of handles.slice(1)) handle.change(doc => (doc.n = 1))
    await pass(1000)
    return { adapter, handles, asked: () => asked }
  }

  it("are posted although one of another document was refused", async () => {
    const { adapter, handles } = await notSent(3)
    await pass(60_000)
    expect(handles.map(handle => adapter.saveStatus(handle).state)).toEqual(["rejected", "saved", "saved"])
    adapter.disconnect()
  })

  it("are asked about in turn if they are many", async () => {
    const { adapter, handles, asked } = await notSent(251)
    await pass(10_000)
    expect(asked()).toBeLessThanOrEqual(100)
    await pass(100_000)
    expect(handles.filter(handle => adapter.saveStatus(handle).state === "saved")).toHaveLength(250)
    adapter.disconnect()
  })
})

describe("changes that build on a refused one", () => {
  /** Two refused changes on a refused one, and a fine one on top; the connection ends before the client hears of the two. */
  async function cutBeforeTheRefusal() {
    useFakeTime()
    const server = new FakeServer()
    server.refuses = ({ message }) => message === "bad"
    const line = server.line()
    const { adapter, repo } = participant(server, { line, more: { fetch: server.fetch(line) } })
    const handle = repo.create<any>({ n: 0 })
    const edit = (message?: string) => handle.change(doc => (doc.n += 1), message === undefined ? {} : { message })
    edit("bad")
    await pass(31)
    edit("bad")
    edit("bad")
    edit()
    await pass(11)
    line.cut()
    await pass(100)
    line.mend()
    return { server, adapter, handle, bad: hashesOf(handle).slice(1, 4) }
  }

  it("are posted once on a connection, so that the server says which of them it refuses", async () => {
    const { server, adapter, handle, bad } = await cutBeforeTheRefusal()
    await pass(100_000)
    const error = await adapter.close().catch(error => error)
    expect(error.documents[0].rejected.map(({ hash }: { hash: string }) => hash).sort()).toEqual([...bad].sort())
    expect(error.documents[0].hashes).toEqual(hashesOf(handle).slice(1))
    expect(server.requests).toHaveLength(1)
    server.closeAll(1006)
    await pass(100_000)
    // The last of them is fine but for what it builds on, and the server keeps it until that comes.
    expect(server.requests).toHaveLength(2)
    adapter.disconnect()
  })
})

describe("an outbox whose store never answers", () => {
  it("holds nothing up", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    const { adapter, repo } = participant(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    await pass(500)
    outbox.write = () => new Promise(() => {})
    handle.change(doc => (doc.n = 1))
    await pass(100)
    expect(adapter.saveStatus(handle).state).toBe("saved")
  })

  it("does not keep close from its end, also if it was silent from the start", async () => {
    useFakeTime()
    const server = new FakeServer()
    const outbox = new MemoryStore()
    outbox.load = () => new Promise(() => {})
    outbox.write = () => new Promise(() => {})
    const { adapter, repo } = participant(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    await pass(15_000)
    expect(server.hashes(handle.documentId).size).toBe(1)
    const closing = adapter.close({ timeout: 5000 }).catch(error => error)
    await pass(10_000)
    // Nobody knows whether an earlier session left something.
    expect(await closing).toMatchObject({ reason: "outbox", documents: [], cause: adapter.outboxError })
    expect(adapter.outboxError).toBeInstanceOf(Error)
  })
})

describe("the connection", () => {
  it.each([true, false])("notices a path that is dead without an event, and comes back (extensions: %s)", async extended => {
    useFakeTime()
    const server = new FakeServer()
    server.extended = extended
    const { adapter, repo, line } = participant(server)
    const handle = repo.create<any>({ n: 0 })
    await pass(500)
    line.cut()
    line.mend()
    handle.change(doc => (doc.n = 1))
    await pass(21_000)
    expect(adapter.saveStatus(handle).state).toBe("saved")
  })

  it("notices that also when nothing is owed, so that it hears of others' changes", async () => {
    useFakeTime()
    const server = new FakeServer()
    const [alice, bob] = [participant(server), participant(server)]
    const hers = alice.repo.create<any>({ n: 0 })
    await pass(500)
    const finding = bob.repo.find<any>(hers.url)
    await pass(500)
    const his = await finding
    alice.line.cut()
    alice.line.mend()
    his.change(doc => (doc.n = 1))
    await pass(21_000)
    expect(hers.doc()).toEqual({ n: 1 })
  })

  it("is quiet and stays while a healthy server has nothing to say", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter, repo } = participant(server)
    repo.create<any>({ n: 0 })
    await pass(500)
    let lost = 0
    adapter.on("peer-disconnected", () => lost++)
    await pass(600_000)
    expect([lost, adapter.state]).toEqual([0, "open"])
  })

  it("tells what becomes of it to those who want to know", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter } = participant(server)
    const heard: string[] = []
    const undo = adapter.onStateChange(state => heard.push(`${state} ${adapter.state}`))
    await pass(100)
    server.closeAll(1013)
    await pass(2000)
    server.closeAll(4409)
    await pass(100)
    const first = ["connecting connecting", "open open"]
    expect(heard).toEqual([...first, "waiting waiting", "connecting connecting", "open open", "stopped stopped"])
    undo()
    adapter.disconnect()
    expect(heard).toHaveLength(6)
  })

  it("comes back at once when the network is back", async () => {
    useFakeTime()
    const server = new FakeServer()
    const window = new EventTarget()
    const { adapter, line } = participant(server, { more: { window, random: () => 0.999 } })
    line.mode = "refused"
    await pass(60_000)
    expect(adapter.state).toBe("waiting")
    line.mode = "up"
    window.dispatchEvent(new Event("online"))
    await pass(20)
    expect(adapter.state).toBe("open")
  })

  it("comes back when a restarting server said", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter } = participant(server, { more: { random: () => 0.999 } })
    await pass(100)
    server.stop()
    server.start()
    await pass(190)
    expect(adapter.state).toBe("waiting")
    await pass(40)
    expect(adapter.state).toBe("open")
  })

  for (const code of [1003, 1009, 4400, 4403, 4409, 4413, 4422]) {
    it(`stays away after ${code}, and those who wait are told`, async () => {
      useFakeTime()
      const server = new FakeServer()
      const { adapter, repo } = participant(server)
      await pass(100)
      server.commitMs = 1e9
      const handle = repo.create({ n: 0 })
      const failure = adapter.whenSaved(handle).catch(error => error)
      server.closeAll(code, "because")
      await pass(60_000)
      expect(adapter.state).toBe("stopped")
      expect(adapter.error).toMatchObject({ code })
      expect(await failure).toMatchObject({ reason: "stopped", cause: adapter.error })
    })
  }

  for (const code of [1000, 1006, 1012, 1013, 4408, 4429, 4999]) {
    it(`comes back after ${code}`, async () => {
      useFakeTime()
      const server = new FakeServer()
      const { adapter } = participant(server)
      await pass(100)
      server.closeAll(code)
      await pass(2000)
      expect(adapter.state).toBe("open")
    })
  }

  it("comes back ever more slowly to a server that lets it in and closes again", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { adapter } = participant(server, { more: { random: () => 1 } })
    const pauses: number[] = []
    for (let n = 0; n < 6; n++) {
      for (let ms = 0; adapter.state !== "open"; ms++) {
        await pass(1)
        pauses[n] = ms
      }
      server.closeAll(1013)
      await pass(10)
    }
    expect(pauses.slice(1).every((pause, n) => n === 0 || pause > 1.5 * pauses[n]!)).toBe(true)
  })

  it("gets a new token when the old one has expired", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.token = "one"
    const requests: boolean[] = []
    const token = async ({ expired }: { expired: boolean }) => {
      requests.push(expired)
      return expired ? "two" : "one"
    }
    const { adapter } = participant(server, { token })
    await pass(100)
    expect(adapter.state).toBe("open")
    server.token = "two"
    server.closeAll(4401)
    await pass(2000)
    expect(adapter.state).toBe("open")
    expect(requests).toEqual([false, true])
  })

  it("stops when a fixed token has expired", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.token = "two"
    const { adapter } = participant(server, { token: "one" })
    await pass(100)
    expect(adapter.error?.message).toContain("function that gets a new one")
  })
})

it("waiting for each of many changes while offline does not make the next one slow", async () => {
  useFakeTime()
  const { adapter, repo, line } = participant(new FakeServer())
  line.cut()
  const handle = repo.create<any>({ n: 0 })
  const ended = new AbortController()
  const type = (count: number) => {
    const start = performance.now()
    for (let n = 0; n < count; n++) {
      handle.change(doc => (doc.n = n))
      adapter.whenSaved(handle, { signal: ended.signal }).catch(() => {})
    }
    return (performance.now() - start) / count
  }
  type(1000)
  expect(type(20)).toBeLessThan(8)
  ended.abort()
  adapter.disconnect()
})
