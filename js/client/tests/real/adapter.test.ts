// The adapter against the built server. HIGHWATER_BIN names the program, as for the interop tests.

import { join } from "node:path"
import * as A from "@automerge/automerge"
import { describe, expect, vi } from "vitest"
import { FileOutboxStore } from "../../src/node/index.js"
import { MemoryStorage } from "../fake/world.js"
import { test } from "./world.js"

const TIMEOUT = { timeout: 20_000 }

describe("with the real server", () => {
  test("what is saved survives kill -9", async ({ world }) => {
    const { adapter, repo } = world.client()
    const handle = repo.create<any>({ n: 0 })
    for (let n = 1; n <= 50; n++) handle.change(doc => (doc.n = n))
    await adapter.whenSaved(handle, TIMEOUT)
    await world.server.kill9()
    await world.server.start()
    const found = await world.client().repo.find<any>(handle.url)
    expect(found.doc().n).toBe(50)
  })

  test("close waits over a cut line until all is durable", async ({ world }) => {
    const line = await world.line()
    const { adapter, repo } = world.client({ url: line.url })
    const handle = repo.create<any>({ n: 0 })
    await adapter.whenSaved(handle, TIMEOUT)
    line.cut()
    for (let n = 1; n <= 20; n++) handle.change(doc => (doc.n = n))
    const closing = adapter.close(TIMEOUT)
    expect(adapter.saveStatus(handle).unsavedChanges).toBe(20)
    line.mend()
    await closing
    const found = await world.client().repo.find<any>(handle.url)
    expect(found.doc().n).toBe(20)
  })

  test("close without a server names what is missing, and the next session delivers it", async ({ world }) => {
    const outbox = () => new FileOutboxStore(join(world.folder, "outbox"))
    const first = world.client({ outbox: outbox() })
    const handle = first.repo.create<any>({ n: 0 })
    await first.adapter.whenSaved(handle, TIMEOUT)
    await world.server.kill9()
    handle.change(doc => (doc.n = 1))
    const [, hash] = A.getChangesMetaSince(handle.doc(), [])
    const error = await first.adapter.close({ timeout: 300 }).catch(error => error)
    expect(error).toMatchObject({ reason: "timeout", documents: [{ documentId: handle.documentId, hashes: [hash!.hash] }] })
    expect(first.adapter.saveStatus(handle).state).toBe("savedOnDevice")
    first.adapter.disconnect()
    await world.server.start()

    const second = world.client({ outbox: outbox() })
    await second.adapter.flush(TIMEOUT)
    const found = await world.client().repo.find<any>(handle.url)
    expect(found.doc().n).toBe(1)
  })

  test("a restart is survived, and the change made meanwhile is saved", async ({ world }) => {
    const { adapter, repo } = world.client()
    const handle = repo.create<any>({ n: 0 })
    await adapter.whenSaved(handle, TIMEOUT)
    await world.server.stop()
    handle.change(doc => (doc.n = 1))
    expect(adapter.saveStatus(handle).state).not.toBe("saved")
    await world.server.start()
    await adapter.whenSaved(handle, TIMEOUT)
  })

  test("a change that the server refuses is called rejected, with the server's reason", async ({ world }) => {
    const [one, two] = [world.client(), world.client()]
    const hers = one.repo.create<any>({ n: 0 })
    await one.adapter.whenSaved(hers, TIMEOUT)
    const his = await two.repo.find<any>(hers.url)
    await two.adapter.whenSaved(his, TIMEOUT)
    // Two changes with the same number by the same actor, of which only one can be part of the document.
    his.update(doc => A.clone(doc, { actor: A.getActorId(hers.doc()) }))
    hers.change(doc => (doc.n = 1))
    his.change(doc => (doc.n = 2))
    const heads = [A.getHeads(hers.doc())[0]!, A.getHeads(his.doc())[0]!]
    const [hersSaved, hisSaved] = await Promise.allSettled([
      one.adapter.whenSaved(hers, TIMEOUT),
      two.adapter.whenSaved(his, TIMEOUT),
    ])
    const refused = [hersSaved, hisSaved].findIndex(({ status }) => status === "rejected")
    expect([hersSaved.status, hisSaved.status].sort()).toEqual(["fulfilled", "rejected"])
    const { adapter } = [one, two][refused]!
    expect(adapter.saveStatus(hers.documentId).state).toBe("rejected")
    const error = await adapter.close(TIMEOUT).catch(error => error)
    expect(error).toMatchObject({ reason: "rejected" })
    expect(error.documents[0].rejected).toEqual([{ hash: heads[refused], reason: expect.stringMatching(/\w/) }])
  })

  test("a document that is deleted on the server is rejected as a whole, also by later sessions", async ({ world }) => {
    const storage = new MemoryStorage()
    const { adapter, repo } = world.client({ repo: { storage } })
    const handle = repo.create<any>({ n: 0 })
    await adapter.whenSaved(handle, TIMEOUT)
    await repo.flush()
    await fetch(`${world.server.url.replace("ws", "http")}/v1/docs/${handle.documentId}`, { method: "DELETE" })
    await vi.waitFor(() => expect(adapter.saveStatus(handle).state).toBe("rejected"), TIMEOUT)
    const later = world.client({ repo: { storage } })
    void later.repo.find(handle.url)
    await vi.waitFor(() => expect(later.adapter.saveStatus(handle).state).toBe("rejected"), TIMEOUT)
    for (const one of [adapter, later.adapter]) {
      const error = await one.close(TIMEOUT).catch(error => error)
      expect(error).toMatchObject({ reason: "rejected", documents: [{ hashes: A.getHeads(handle.doc()) }] })
    }
  })

  test("the second client with a peer id ends the first for good", async ({ world }) => {
    const one = world.client({ repo: { peerId: "same" as any } })
    const handle = one.repo.create<any>({ n: 0 })
    await one.adapter.whenSaved(handle, TIMEOUT)
    const two = world.client({ repo: { peerId: "same" as any } })
    const other = two.repo.create<any>({ n: 0 })
    await two.adapter.whenSaved(other, TIMEOUT)
    handle.change(doc => (doc.n = 1))
    const error = await one.adapter.close(TIMEOUT).catch(error => error)
    expect(error).toMatchObject({ reason: "stopped", cause: { code: 4409 } })
  })

  test("ten editors: every change is saved, and counts return to zero", async ({ world }) => {
    const people = Array.from({ length: 10 }, () => world.client())
    const first = people[0]!.repo.create<any>({})
    await people[0]!.adapter.whenSaved(first, TIMEOUT)
    const handles = await Promise.all(people.map(({ repo }) => repo.find<any>(first.url)))
    for (let n = 0; n < 20; n++) {
      for (const [who, handle] of handles.entries()) handle.change(doc => (doc[`${who}-${n}`] = n))
      await new Promise(resolve => setTimeout(resolve, 5))
    }
    await Promise.all(people.map(({ adapter }, n) => adapter.whenSaved(handles[n]!, TIMEOUT)))
    await Promise.all(people.map(({ adapter }) => adapter.flush(TIMEOUT)))
    for (const { adapter } of people) expect(adapter.saveStatus()).toMatchObject({ state: "saved", unsavedChanges: 0 })
    const found = await world.client().repo.find<any>(first.url)
    expect(Object.keys(found.doc())).toHaveLength(200)
    await Promise.all(people.map(({ adapter }) => adapter.close(TIMEOUT)))
  })
})
