// What a page does when it may be gone the next moment.

import * as A from "@automerge/automerge"
import { describe, expect, it } from "vitest"
import { splitChunks } from "../src/core/changes.js"
import { PARTING_BYTES_MAX } from "../src/core/page.js"
import { FakeServer } from "./fake/server.js"
import { pass, useFakeTime } from "./fake/time.js"
import { hashesOf, MemoryStore, participant } from "./fake/world.js"

class FakePage {
  readonly window = new EventTarget()
  readonly document = Object.assign(new EventTarget(), { visibilityState: "visible" })

  hide(): void {
    this.document.visibilityState = "hidden"
    this.document.dispatchEvent(new Event("visibilitychange"))
  }

  /** Whether the browser would ask before it closes the tab. */
  get asks(): boolean {
    const event = new Event("beforeunload", { cancelable: true })
    Object.defineProperty(event, "returnValue", { value: "", writable: true })
    return !this.window.dispatchEvent(event)
  }
}

function pageOf(server: FakeServer, { answerMs = 0, ...more }: { answerMs?: number; token?: string; outbox?: MemoryStore; warnOnUnload?: boolean } = {}) {
  const page = new FakePage()
  const line = server.line()
  const fetches: any[] = []
  const fetch = async (url: string, init: any) => {
    fetches.push({ url, ...init })
    const answer = await server.fetch(line)(url, init)
    if (answerMs > 0) await new Promise<void>(resolve => setTimeout(resolve, answerMs))
    return answer
  }
  const parts = participant(server, { line, more: { ...page, fetch }, ...more })
  return { page, fetches, ...parts }
}

describe("when the page is hidden", () => {
  it("what waits for a write of the outbox does not wait any longer", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.commitMs = 1e9
    const outbox = new MemoryStore()
    const { page, repo } = pageOf(server, { outbox })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    outbox.writeMs = 100
    handle.change(doc => (doc.n = 1))
    await pass(10)
    handle.change(doc => (doc.n = 2))
    page.hide()
    await pass(105)
    expect([...outbox.everPut]).toEqual(hashesOf(handle))
  })

  it("what is not durable is posted, in causal order, and the answer counts", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { page, fetches, adapter, repo } = pageOf(server, { token: "t" })
    const handle = repo.create<any>({ n: 0 })
    await pass(1000)
    server.commitMs = 1e9
    for (let n = 1; n <= 3; n++) handle.change(doc => (doc.n = n))
    page.hide()
    expect(fetches).toMatchObject([
      { url: `http://server.test/v1/docs/${handle.documentId}/changes?token=t`, method: "POST", keepalive: true },
    ])
    expect(fetches[0].headers).toEqual({ "content-type": "text/plain" })
    const posted = splitChunks(fetches[0].body).map(change => A.decodeChange(change).hash)
    expect(posted).toEqual(hashesOf(handle).slice(1))
    await pass(10)
    expect(adapter.saveStatus(handle).state).toBe("saved")
    page.hide()
    expect(fetches).toHaveLength(1)
  })

  it("no more than browsers allow is posted, over all documents, and it begins at the beginning", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { page, fetches, line, repo } = pageOf(server)
    line.mode = "silent"
    const noise = () => Array.from({ length: 15_000 }, () => Math.random().toString(36)[3]).join("")
    const handles = [1, 2].map(() => repo.create<any>({ n: 0 }))
    for (const handle of handles) for (let n = 0; n < 4; n++) handle.change(doc => (doc[`text ${n}`] = noise()))
    page.hide()
    page.document.dispatchEvent(new Event("freeze"))
    page.window.dispatchEvent(new Event("pagehide"))
    const size = fetches.reduce((sum, { body }) => sum + body.length, 0)
    expect(size).toBeGreaterThan(30_000)
    expect(size).toBeLessThanOrEqual(PARTING_BYTES_MAX)
    for (const { url, body } of fetches) {
      const handle = handles.find(({ documentId }) => url.includes(documentId))!
      const posted = splitChunks(body).map(change => A.decodeChange(change).hash)
      expect(posted).toEqual(hashesOf(handle).slice(0, posted.length))
    }
  })

  it("what the server has refused does not take the room of what it may take", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.refuses = ({ message }) => message === "bad"
    const { page, fetches, line, repo } = pageOf(server)
    const noise = (length: number) => Array.from({ length }, () => Math.random().toString(36)[3]).join("")
    const [bad, good] = [repo.create<any>({ n: 0 }), repo.create<any>({ n: 0 })]
    await pass(1000)
    bad.change(doc => (doc.text = noise(60_000)), { message: "bad" })
    bad.change(doc => (doc.n = 1))
    await pass(1000)
    line.cut()
    good.change(doc => (doc.text = noise(50_000)))
    page.hide()
    expect(fetches.map(({ url }) => url)).toEqual([expect.stringContaining(good.documentId)])
  })

  it("a post that fails changes nothing", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.httpStatus = 503
    const { page, line, adapter, repo } = pageOf(server)
    line.mode = "silent"
    const handle = repo.create<any>({ n: 0 })
    page.hide()
    await pass(10)
    expect(adapter.saveStatus(handle)).toMatchObject({ state: "notSaved", unsavedChanges: 1 })
  })

  it("an answer counts no more once there is another connection: it may be of a server that has lost it since", async () => {
    useFakeTime()
    const server = new FakeServer()
    server.backup()
    server.commitMs = 1e9
    const { page, adapter, repo } = pageOf(server, { answerMs: 3000 })
    const handle = repo.create<any>({ n: 0 })
    await pass(100)
    page.hide()
    await pass(100)
    expect(server.hashes(handle.documentId).size).toBe(1)
    server.restore()
    await pass(5000)
    expect(server.hashes(handle.documentId).size).toBe(0)
    expect(adapter.saveStatus(handle).state).toBe("saving")
  })

  it("a page that is put away whole lets go of its socket, and connects when it is back", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { page, adapter } = pageOf(server)
    await pass(100)
    page.window.dispatchEvent(Object.assign(new Event("pagehide"), { persisted: true }))
    expect(adapter.state).toBe("idle")
    page.window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }))
    await pass(100)
    expect(adapter.state).toBe("open")
  })
})

it("an adapter that was disconnected still asks while something is unsaved", async () => {
  useFakeTime()
  const { page, adapter, repo } = pageOf(new FakeServer(), { warnOnUnload: true })
  repo.create<any>({ n: 0 })
  expect(page.asks).toBe(true)
  adapter.disconnect()
  expect(page.asks).toBe(true)
})

describe("before the tab is closed", () => {
  it("the browser asks only while something is unsaved", async () => {
    useFakeTime()
    const server = new FakeServer()
    const { page, repo } = pageOf(server, { warnOnUnload: true })
    await pass(100)
    expect(page.asks).toBe(false)
    const handle = repo.create<any>({ n: 0 })
    expect(page.asks).toBe(true)
    await pass(1000)
    expect(page.asks).toBe(false)
    handle.change(doc => (doc.n = 1))
    expect(page.asks).toBe(true)
  })

  it("the browser does not ask unless the application wants it", async () => {
    useFakeTime()
    const { page, repo } = pageOf(new FakeServer())
    repo.create<any>({ n: 0 })
    expect(page.asks).toBe(false)
  })
})

it("the browser is asked to keep the outbox, once, and only when there is something in it", async () => {
  useFakeTime()
  let asked = 0
  const persistStorage = async () => ++asked > 0
  const { repo } = participant(new FakeServer(), { outbox: new MemoryStore(), more: { persistStorage } })
  await pass(100)
  expect(asked).toBe(0)
  const handle = repo.create<any>({ n: 0 })
  handle.change(doc => (doc.n = 1))
  expect(asked).toBe(1)
})
