import type { DocHandle } from "@automerge/automerge-repo"
import fc from "fast-check"
import { expect, it } from "vitest"
import { runs } from "./fake/runs.js"
import { FakeServer } from "./fake/server.js"
import { forgetTimers, pass, useFakeTime } from "./fake/time.js"
import { hashesOf, MemoryStore, participant } from "./fake/world.js"

const EDITORS = 10

it("ten editors on lines of all kinds: every change is saved in the end, and all counts return to zero", async () => {
  useFakeTime()
  const edits = fc.array(
    fc.record({ who: fc.nat(EDITORS - 1), wait: fc.nat(60), cut: fc.integer({ min: 0, max: 9 }) }),
    { minLength: 20, maxLength: 60 }
  )
  const property = fc.asyncProperty(edits, fc.boolean(), async (edits, extended) => {
    forgetTimers()
    const server = new FakeServer()
    server.extended = extended
    server.commitMs = 20
    const outboxes = Array.from({ length: EDITORS }, () => new MemoryStore())
    const people = outboxes.map((outbox, n) => participant(server, { outbox, line: server.line(1 + 7 * n) }))
    const first = people[0]!.repo.create<any>({})
    await pass(1500)
    const finding = people.map(({ repo }) => repo.find<any>(first.url))
    await pass(3000)
    const handles: DocHandle<any>[] = await Promise.all(finding)
    const seen = new Set<string>()
    for (const [n, { who, wait, cut }] of edits.entries()) {
      if (cut === 0) people[who]!.line.cut()
      handles[who]!.change(doc => (doc[`${n}`] = who))
      for (const hash of hashesOf(handles[who]!)) seen.add(hash)
      await pass(wait)
      if (cut === 1) people[who]!.line.mend()
    }
    for (const { line } of people) line.mend()
    await pass(120_000)
    expect(server.hashes(first.documentId)).toEqual(seen)
    for (const { adapter } of people) expect(adapter.saveStatus()).toMatchObject({ state: "saved", unsavedChanges: 0 })
    for (const { changes } of outboxes) expect(changes.size).toBe(0)
    const closing = Promise.all(people.map(({ adapter }) => adapter.close({ timeout: 1000 })))
    await pass(1000)
    await closing
  })
  await fc.assert(property, runs(4))
}, 300_000)
