import * as A from "@automerge/automerge"
import { describe, expect, it } from "vitest"
import { changesSince } from "../src/core/changes.js"
import { TrackedDocument } from "../src/core/tracked-document.js"

/** A document under observation. */
function tracked() {
  const pending: string[] = []
  const settled: string[] = []
  const lacking: string[] = []
  const events = {
    onPending: (_: string, changes: readonly { hash: string }[]) => pending.push(...changes.map(({ hash }) => hash)),
    onSettled: (_: string, changes: readonly { hash: string }[]) => settled.push(...changes.map(({ hash }) => hash)),
    onLacking: (documentId: string) => lacking.push(documentId),
  }
  return { document: new TrackedDocument("doc", events, () => 0), pending, settled, lacking }
}

const grow = (doc: A.Doc<any>, n = 1): A.Doc<any> => (n === 0 ? doc : grow(A.change(doc, d => (d.n = (d.n ?? 0) + 1)), n - 1))
const load = (doc: A.Doc<any>): A.Doc<any> => A.load(A.save(doc))
const hashes = (doc: A.Doc<any>) => changesSince(doc, []).map(({ hash }) => hash)

describe("a document", () => {
  it("that was made here owes all of itself", () => {
    const { document, pending } = tracked()
    const doc = grow(A.init(), 3)
    document.update(doc)
    expect(pending).toEqual(hashes(doc))
    expect(document.isSaved).toBe(false)
  })

  it("that came from the server owes nothing, and nothing of it passes through the outbox", () => {
    const { document, pending } = tracked()
    const doc = load(grow(A.init(), 3))
    document.serverHas(A.getHeads(doc))
    expect(document.isSaved).toBe(true)
    document.update(doc)
    expect(document.isSaved).toBe(true)
    expect(pending).toEqual([])
  })

  it("that was loaded is not saved until the server says what it has of it", () => {
    const { document, pending } = tracked()
    const old = grow(A.init(), 2)
    const doc = grow(A.clone(old), 2)
    document.update(load(doc))
    expect(document.isSaved).toBe(false)
    expect(document.unsaved.hashes).toEqual(hashes(doc))
    document.serverHas(A.getHeads(old))
    expect(pending).toEqual(hashes(doc).slice(2))
    document.serverHas(A.getHeads(doc))
    expect(document.isSaved).toBe(true)
  })

  it("that the server does not have at all owes all of itself, whatever was said before", () => {
    const { document } = tracked()
    const doc = grow(A.init(), 3)
    document.update(doc)
    document.serverHas(A.getHeads(doc))
    expect(document.isSaved).toBe(true)
    document.serverHas([])
    expect([...document.pending.keys()]).toEqual(hashes(doc))
  })

  it("asks by name while the server's heads are unknown here, and takes the answer", () => {
    const { document, settled } = tracked()
    const base = grow(A.init(), 1)
    const mine = grow(A.clone(base), 2)
    document.update(mine)
    document.serverHas(A.getHeads(base))
    expect(document.undecided).toEqual([])
    // Somebody else's change on top of my first, which has not arrived here.
    document.serverHas(["ab".repeat(32)])
    expect(document.undecided).toEqual(hashes(mine).slice(1))
    document.markDurable(hashes(mine).slice(1, 2))
    expect(settled).toEqual(hashes(mine).slice(0, 2))
    expect([...document.pending.keys()]).toEqual(hashes(mine).slice(2))
  })

  it("is saved when somebody else's change that builds on all of it arrives after its acknowledgement", () => {
    const { document } = tracked()
    const mine = grow(A.init(), 2)
    document.update(mine)
    const theirs = grow(load(mine), 2)
    document.serverHas(A.getHeads(theirs))
    expect(document.isSaved).toBe(false)
    const [merged] = A.applyChanges(mine, A.getAllChanges(theirs))
    document.update(merged)
    expect(document.isSaved).toBe(true)
  })

  it("that is replaced by one with another history owes only what is in it", () => {
    const { document } = tracked()
    document.update(A.emptyChange(A.init()))
    const clone = A.clone(grow(A.init(), 2))
    document.update(clone)
    expect([...document.pending.keys()]).toEqual(hashes(clone))
  })

  it("that is unloaded still owes what it owed", () => {
    const { document } = tracked()
    const doc = grow(A.init(), 2)
    document.update(doc)
    document.update(A.init())
    expect(document.pending.size).toBe(2)
  })

  it("remembers what an earlier session owed, also what the document itself has lost", () => {
    const { document, settled } = tracked()
    const old = grow(A.init(), 2)
    const doc = grow(A.clone(old), 2)
    const owed = changesSince(doc, A.getHeads(old)).map(change => ({ ...change, since: 5 }))
    document.remember(A.getHeads(old), owed)
    document.update(load(old))
    expect(document.missingHere.map(({ hash }) => hash)).toEqual(owed.map(({ hash }) => hash))
    expect(document.facts).toMatchObject({ unsavedChanges: 2, unsavedSince: 5, isStored: true })
    // The server confirms the old part. That says nothing about the rest.
    document.serverHas(A.getHeads(old))
    expect(document.pending.size).toBe(2)
    expect(settled).toEqual([])
    document.serverHas(A.getHeads(doc))
    document.update(load(doc))
    expect(document.isSaved).toBe(true)
    expect(settled.sort()).toEqual(owed.map(({ hash }) => hash).sort())
  })

  it("settles what it remembers if the server spoke before the outbox was read", () => {
    const { document, settled } = tracked()
    const doc = grow(A.init(), 3)
    document.serverHas(A.getHeads(doc))
    document.update(load(doc))
    document.remember([], changesSince(doc, []).slice(0, 2).map(change => ({ ...change, since: 0 })))
    expect(document.isSaved).toBe(true)
    expect(settled).toEqual(hashes(doc).slice(0, 2))
  })
})
