import * as A from "@automerge/automerge"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { changesSince } from "../src/core/changes.js"
import { TrackedDocument } from "../src/core/tracked-document.js"
import { runs } from "./fake/runs.js"

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

describe("a document that is read again from storage that is behind", () => {
  it("keeps what only this session has, whether it is pending, durable or not known to be", () => {
    const { document, lacking } = tracked()
    const old = grow(A.init(), 2)
    const doc = grow(A.clone(old), 2)
    document.update(load(doc))
    document.serverHas(A.getHeads(doc))
    const copy = load(old)
    document.update(copy)
    expect(lacking).toEqual(["doc"])
    expect(document.lackedBy(copy).map(({ hash }) => hash)).toEqual(hashes(doc).slice(2))
    expect(document.isSaved).toBe(true)
    document.doubt(true)
    document.serverHas(A.getHeads(old))
    expect([...document.pending.keys()]).toEqual(hashes(doc).slice(2))
  })

  it("and gets new changes that storage had besides, owes those too", () => {
    const { document, pending } = tracked()
    const base = grow(A.init(), 1)
    const [mine, others] = [grow(A.clone(base), 1), load(grow(A.clone(base), 1))]
    document.update(mine)
    document.update(others)
    expect(pending.sort()).toEqual([...hashes(mine), ...hashes(others).slice(1)].sort())
    expect(document.heads).toHaveLength(2)
  })
})

it("whatever happens, saved means that the server of this connection has all that was ever here, and nothing is lost", () => {
  const event = fc.constantFrom(
    ...(["edit", "edit", "edit", "other edits", "store", "reload", "refill", "send", "receive", "speak", "answer"] as const),
    ...(["send", "speak", "wait", "reconnect", "backup", "rollback", "replace"] as const)
  )
  const property = fc.property(fc.array(event, { maxLength: 40 }), fc.boolean(), (events, wasStored) => {
    const { document } = tracked()
    const first = grow(A.init(), 2)
    let copy: A.Doc<any> = wasStored ? load(first) : grow(A.init(), 1)
    let stored: A.Doc<any> = wasStored ? first : copy
    let server: A.Doc<any> = A.init()
    let backup: A.Doc<any> = A.init()
    const had = new Set<string>()
    let waits: Array<{ hashes: string[]; had: string[] }> = []
    const show = (doc: A.Doc<any>) => {
      copy = doc
      for (const hash of hashes(doc)) had.add(hash)
      document.update(doc)
    }
    const merge = (a: A.Doc<any>, b: A.Doc<any>) => A.applyChanges(A.clone(a), A.getAllChanges(b))[0]
    show(copy)
    for (const what of events) {
      if (what === "edit") show(grow(copy, 1))
      else if (what === "other edits") server = grow(A.clone(server), 1)
      else if (what === "store") stored = A.clone(copy)
      else if (what === "reload") show(load(stored))
      else if (what === "refill") show(A.applyChanges(A.clone(copy), document.lackedBy(copy).map(({ bytes }) => bytes))[0])
      else if (what === "send") server = merge(server, copy)
      else if (what === "speak") document.serverHas(A.getHeads(server))
      else if (what === "receive") {
        document.serverHas(A.getHeads(server))
        show(merge(copy, server))
      } else if (what === "answer") {
        const known = new Set(hashes(server))
        document.markDurable(document.undecided.filter(hash => known.has(hash)))
      } else if (what === "wait") waits.push({ hashes: document.tips, had: [...had] })
      else if (what === "reconnect") document.doubt(false)
      else if (what === "backup") backup = A.clone(server)
      else {
        server = A.clone(backup)
        document.doubt(what === "replace")
      }

      const durable = new Set(hashes(server))
      const missing = (some: Iterable<string>) => [...some].filter(hash => !durable.has(hash))
      if (document.isSaved) expect(missing(had)).toEqual([])
      for (const wait of waits) if (document.covers(wait.hashes)) expect(missing(wait.had)).toEqual([])
      waits = waits.filter(({ hashes }) => !document.covers(hashes))
      const kept = new Set(document.lackedBy(A.init()).map(({ hash }) => hash))
      expect([...had].filter(hash => !kept.has(hash))).toEqual([])
    }
    document.doubt(false)
    server = merge(server, A.applyChanges(A.init<any>(), document.lackedBy(A.init()).map(({ bytes }) => bytes))[0])
    document.serverHas(A.getHeads(server))
    show(merge(copy, server))
    expect(document.isSaved).toBe(true)
  })
  fc.assert(property, runs(300))
}, 300_000)
