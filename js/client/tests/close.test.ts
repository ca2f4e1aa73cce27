// The promise of close(): when it resolves, everything that was typed before is durable, also what was typed
// while it waited; otherwise it rejects in time with exactly what the server has not called durable; and it
// always ends.

import * as A from "@automerge/automerge"
import type { DocHandle } from "@automerge/automerge-repo"
import fc from "fast-check"
import { expect, it } from "vitest"
import { UnsavedChangesError } from "../src/index.js"
import { PlainDocument } from "../src/plain/index.js"
import { runs } from "./fake/runs.js"
import { Issuer, play, repair, schedule, type Step } from "./fake/schedule.js"
import { FakeServer } from "./fake/server.js"
import { forgetTimers, pass, useFakeTime } from "./fake/time.js"
import { ancestors, DOCUMENT_ID, environment, hashesOf, MemoryStorage, MemoryStore, participant } from "./fake/world.js"

interface Outcome<T> {
  ended?: "resolved" | "rejected"
  error?: any
  /** What `look` saw in the moment of the end. */
  seen?: T
}

/** How a promise ended, once it has. */
function outcome<T>(promise: Promise<unknown>, look?: () => T): Outcome<T> {
  const result: Outcome<T> = {}
  const end = (more: Outcome<T>) => Object.assign(result, more, look ? { seen: look() } : {})
  promise.then(
    () => end({ ended: "resolved" }),
    error => end({ ended: "rejected", error })
  )
  return result
}

const CASE = fc.record({
  before: schedule(20),
  during: schedule(12),
  timeout: fc.oneof(fc.nat(100), fc.nat(20_000)),
  writeMs: fc.constantFrom(0, 3, 50),
})

async function closeRepo(before: Step[], during: Step[], timeout: number, writeMs: number): Promise<void> {
  forgetTimers()
  const server = new FakeServer()
  const issuer = new Issuer(server)
  const outbox = new MemoryStore()
  outbox.writeMs = writeMs
  const { adapter, repo, line } = participant(server, { outbox, token: () => issuer.current })
  const handles: Array<DocHandle<any> | undefined> = [undefined, undefined]
  const edit = (document: number) => {
    const handle = (handles[document] ??= repo.create<any>({ n: 0 }))
    handle.change(doc => (doc.n += 1))
  }
  const scene = { server, line, issuer, edit }
  const open = () => handles.filter(handle => handle !== undefined)
  const notDurable = (handle: DocHandle<any>) => {
    const durable = server.hashes(handle.documentId)
    return hashesOf(handle).filter(hash => !durable.has(hash))
  }
  const typed = () => new Map(open().map(handle => [handle, { hashes: hashesOf(handle), notDurable: notDurable(handle) }]))

  await play(before, scene)
  const result = outcome(adapter.close({ timeout }), typed)
  await play(during, scene)
  await pass(timeout)
  expect(result.ended).toBeDefined()

  if (result.ended === "resolved") {
    for (const { notDurable } of result.seen!.values()) expect(notDurable).toEqual([])
    expect(adapter.state).toBe("idle")
    await pass(1000)
    // What was typed after the end is called what it is, and the next session sends it.
    for (const handle of open()) {
      expect(outbox.hashes(handle.documentId)).toEqual(notDurable(handle))
      expect(adapter.saveStatus(handle).unsavedChanges).toBe(notDurable(handle).length)
    }
    return
  }

  expect(result.error).toBeInstanceOf(UnsavedChangesError)
  await pass(0)
  // Time has passed since: only what was known then counts, and it can only have become less.
  const later = scene.server.told.get(line)!
  for (const [handle, { hashes }] of result.seen!) {
    const listed: string[] = result.error.documents.find((one: any) => one.documentId === handle.documentId)?.hashes ?? []
    const told = ancestors(handle.doc(), later.get(handle.documentId) ?? [])
    const missing = hashes.filter(hash => !told.has(hash))
    expect(listed).toEqual(expect.arrayContaining(missing))
  }

  repair(server, line, issuer)
  await pass(100_000)
  const again = outcome(adapter.close({ timeout: 30_000 }))
  await pass(31_000)
  expect(again).toEqual({ ended: "resolved" })
  expect(open().flatMap(notDurable)).toEqual([])
  expect([...outbox.changes.values()]).toEqual([])
}

it("holds for a repo, over random schedules of edits and accidents", async () => {
  useFakeTime()
  await fc.assert(
    fc.asyncProperty(CASE, ({ before, during, timeout, writeMs }) => closeRepo(before, during, timeout, writeMs)),
    runs(1000)
  )
}, 300_000)

it("never resolves once a change was refused, whatever else happens, and says which", async () => {
  useFakeTime()
  const property = fc.asyncProperty(CASE, fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }), async (run, refusals) => {
    forgetTimers()
    const server = new FakeServer()
    server.refuses = ({ message }) => message === "refused"
    const issuer = new Issuer(server)
    const outbox = new MemoryStore()
    outbox.writeMs = run.writeMs
    const line = server.line()
    const more = { fetch: server.fetch(line) }
    const { adapter, repo } = participant(server, { outbox, token: () => issuer.current, line, more })
    const handle = repo.create<any>({ n: 0 })
    let edits = 0
    const edit = () => {
      const message = refusals[edits++ % refusals.length] ? "refused" : "fine"
      handle.change(doc => (doc.n += 1), { message })
    }
    const scene = { server, line, issuer, edit }
    await play(run.before, scene)
    edit()
    const changes = A.getChangesMetaSince(handle.doc(), [])
    const refused = changes.filter(({ message }) => message === "refused").map(({ hash }) => hash)
    const result = outcome(adapter.close({ timeout: run.timeout }))
    await play(run.during.filter(step => step.do !== "edit"), scene)
    await pass(run.timeout)
    expect(result.ended).toBeDefined()
    if (refused.length === 0) return
    expect(result.error).toBeInstanceOf(UnsavedChangesError)
    expect(result.error.documents[0].hashes).toEqual(expect.arrayContaining(refused))

    repair(server, line, issuer)
    await pass(100_000)
    const again = outcome(adapter.close({ timeout: 30_000 }))
    // There is nothing to wait for any more.
    await pass(100)
    expect(again.error).toBeInstanceOf(UnsavedChangesError)
    const [{ hashes, rejected }] = again.error.documents
    expect(rejected.map(({ hash }: { hash: string }) => hash).sort()).toEqual([...refused].sort())
    const durable = server.hashes(handle.documentId)
    expect([...hashes].sort()).toEqual(changes.map(({ hash }) => hash).filter(hash => !durable.has(hash)).sort())
    expect(outbox.hashes(handle.documentId)).toEqual(expect.arrayContaining([...refused]))
    expect(adapter.saveStatus(handle).state).toBe("rejected")
    adapter.disconnect()
  })
  await fc.assert(property, runs(1000))
}, 300_000)

it("lists exactly what the server has not called durable", async () => {
  useFakeTime()
  const property = fc.asyncProperty(schedule(25), fc.nat(500), async (steps, timeout) => {
    forgetTimers()
    const server = new FakeServer()
    const issuer = new Issuer(server)
    const outbox = new MemoryStore()
    const { adapter, repo, line } = participant(server, { outbox, token: () => issuer.current })
    const handle = repo.create<any>({ n: 0 })
    await play(steps, { server, line, issuer, edit: () => handle.change(doc => (doc.n += 1)) })
    let exact: string[] = []
    let kept: string[] = []
    const closing = adapter.close({ timeout }).catch(error => {
      // In the same turn in which it rejects.
      const told = ancestors(handle.doc(), server.told.get(line)!.get(handle.documentId) ?? [])
      exact = hashesOf(handle).filter(hash => !told.has(hash))
      kept = outbox.hashes(handle.documentId)
      return error
    })
    await pass(timeout)
    const error = await closing
    if (!error) return
    expect(error.documents).toEqual([{ documentId: handle.documentId, hashes: exact, rejected: [] }])
    expect(kept).toEqual(expect.arrayContaining(exact))
    adapter.disconnect()
  })
  await fc.assert(property, runs(1000))
}, 300_000)

const DISASTERS = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: schedule(3) as fc.Arbitrary<Array<Step | { do: "backup" | "restore" | "replace" }>> },
    { weight: 1, arbitrary: fc.constantFrom([{ do: "backup" as const }], [{ do: "restore" as const }], [{ do: "replace" as const }]) }
  ),
  { maxLength: 14 }
)

it("lists exactly what the server lacks and what it refuses, over restarts and servers that are restored or replaced", async () => {
  useFakeTime()
  const refusals = fc.array(fc.boolean(), { minLength: 1, maxLength: 8 })
  const property = fc.asyncProperty(DISASTERS, refusals, fc.boolean(), async (steps, refusals, restarts) => {
    forgetTimers()
    const server = new FakeServer()
    server.refuses = ({ message }) => message === "refused"
    const issuer = new Issuer(server)
    const outbox = new MemoryStore()
    const line = server.line()
    const repo = restarts ? { storage: new MemoryStorage() } : {}
    const begin = () => participant(server, { outbox, token: () => issuer.current, line, repo, more: { fetch: server.fetch(line) } })
    let one = begin()
    let handles = [0, 1].map(() => one.repo.create<any>({ n: 0 }))
    let edits = 0
    const edit = (document: number) => {
      const message = refusals[edits++ % refusals.length] ? "refused" : "fine"
      handles[document]!.change(doc => (doc.n += 1), { message })
    }
    for (const step of steps.flat()) {
      if (step.do === "backup" || step.do === "restore" || step.do === "replace") server[step.do]()
      else await play([step as Step], { server, line, issuer, edit })
      await pass(0)
    }
    if (restarts) {
      await pass(300)
      one.adapter.disconnect()
      one = begin()
      const finding = handles.map(({ documentId }) => one.repo.find<any>(documentId))
      await pass(1000)
      handles = await Promise.all(finding)
    }
    repair(server, line, issuer)
    await pass(100_000)
    const closing = outcome(one.adapter.close())
    await pass(100)
    expect(closing.ended).toBeDefined()
    for (const handle of handles) {
      const { documentId } = handle
      const changes = A.getChangesMetaSince(handle.doc(), [])
      const refused = changes.filter(({ message }) => message === "refused").map(({ hash }) => hash)
      const durable = server.hashes(documentId)
      const missing = changes.map(({ hash }) => hash).filter(hash => !durable.has(hash))
      const listed = closing.error?.documents.find((one: any) => one.documentId === documentId) ?? { hashes: [], rejected: [] }
      expect([...listed.hashes].sort()).toEqual([...missing].sort())
      expect(listed.rejected.map(({ hash }: { hash: string }) => hash).sort()).toEqual([...refused].sort())
      expect(outbox.hashes(documentId).sort()).toEqual([...missing].sort())
    }
    one.adapter.disconnect()
  })
  await fc.assert(property, runs(400))
}, 300_000)

it("holds for a plain document", async () => {
  useFakeTime()
  const property = fc.asyncProperty(CASE, async ({ before, during, timeout, writeMs }) => {
    forgetTimers()
    const server = new FakeServer()
    const issuer = new Issuer(server)
    const line = server.line()
    const outbox = new MemoryStore()
    outbox.writeMs = writeMs
    const token = () => issuer.current
    const doc = new PlainDocument<any>("ws://server.test", DOCUMENT_ID, { outbox, token, environment: environment(line) })
    const scene = { server, line, issuer, edit: () => doc.change(d => (d.n = (d.n ?? 0) + 1)) }
    const notDurable = () => {
      const durable = server.hashes(DOCUMENT_ID)
      return A.getChangesMetaSince(doc.doc, []).map(({ hash }) => hash).filter(hash => !durable.has(hash))
    }
    await play(before, scene)
    const result = outcome(doc.close({ timeout }), notDurable)
    await play(during, scene)
    await pass(timeout)
    expect(result.ended).toBeDefined()
    if (result.ended === "resolved") {
      expect(result.seen).toEqual([])
      await pass(1000)
      expect(outbox.hashes(DOCUMENT_ID)).toEqual(notDurable())
      expect(doc.saveStatus().unsavedChanges).toBe(notDurable().length)
      return
    }
    expect(result.error).toBeInstanceOf(UnsavedChangesError)
    repair(server, line, issuer)
    await pass(100_000)
    const again = outcome(doc.close({ timeout: 30_000 }))
    await pass(31_000)
    expect(again).toEqual({ ended: "resolved" })
    expect(notDurable()).toEqual([])
    expect([...outbox.changes.values()]).toEqual([])
  })
  await fc.assert(property, runs(1500))
}, 300_000)
