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
    hasStorage: true,
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

  it("that is loaded on a later connection lists what nobody knows to be durable", () => {
    const { document } = tracked()
    const doc = load(grow(A.init(), 2))
    document.doubt(false)
    document.update(doc)
    expect(document.unsaved.hashes).toEqual(hashes(doc))
  })

  it("lists only what is pending while the same server has not spoken again, and all that it may lack once it says that it lacks something", () => {
    const { document } = tracked()
    const doc = load(grow(A.init(), 2))
    document.update(doc)
    document.serverHas(A.getHeads(doc))
    document.doubt(false)
    expect([document.isSaved, document.unsaved.hashes]).toEqual([false, []])
    // It is ahead, and so its heads do not tell.
    document.serverHas(["ab".repeat(32)])
    expect(document.unsaved.hashes).toEqual([])
    document.markMissing(A.getHeads(doc))
    expect(document.unsaved.hashes).toEqual(hashes(doc))
  })

  it("that is loaded on a connection lists what was not durable in an earlier session, until the server lacks more", () => {
    const { document } = tracked()
    const old = grow(A.init(), 2)
    const doc = grow(load(old), 1)
    document.remember(A.getHeads(old), [])
    document.doubt(false)
    document.update(load(doc))
    expect([document.isSaved, document.unsaved.hashes]).toEqual([false, A.getHeads(doc)])
    document.serverHas(["ab".repeat(32)])
    expect([document.isSaved, document.unsaved.hashes]).toEqual([false, A.getHeads(doc)])
    document.markMissing(A.getHeads(doc))
    expect(document.unsaved.hashes).toEqual(A.getHeads(doc))
    document.markMissing(A.getHeads(old))
    expect(document.unsaved.hashes).toEqual(hashes(doc))
    document.doubt(true)
    document.remember([], [])
    expect(document.unsaved.hashes).toEqual(hashes(doc))
  })

  it("that was durable in an earlier session is not saved on a connection before the server says so", () => {
    const { document } = tracked()
    const doc = load(grow(A.init(), 2))
    document.remember(A.getHeads(doc), [])
    document.doubt(false)
    document.update(doc)
    expect([document.isSaved, document.unsaved.hashes]).toEqual([false, []])
    document.serverHas(A.getHeads(doc))
    expect(document.isSaved).toBe(true)
  })

  it("lists only what is pending when the outbox is read after the server has spoken", () => {
    const { document } = tracked()
    const old = grow(A.init(), 2)
    const doc = grow(load(old), 1)
    document.update(load(old))
    document.serverHas(A.getHeads(old))
    document.serverHas(["ab".repeat(32)])
    document.remember([], changesSince(doc, A.getHeads(old)).map(change => ({ ...change, since: 0 })))
    expect(document.unsaved.hashes).toEqual(A.getHeads(doc))
  })

  it("that was refused before it was known what is owed of it is rejected", () => {
    const { document } = tracked()
    const old = grow(A.init(), 1)
    const doc = grow(A.clone(old), 2)
    const [, refused, after] = hashes(doc)
    document.update(load(doc))
    document.reject([{ hash: refused!, reason: "no" }])
    document.serverHas(A.getHeads(old))
    expect(document.unsaved).toEqual({ documentId: "doc", hashes: [refused, after], rejected: [{ hash: refused, reason: "no" }] })
    expect(document.isHopeless(document.tips)).toBe(true)
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

it("what the server sends in parts is not owed, beside what is", () => {
  const { document, pending } = tracked()
  const base = grow(A.init(), 1)
  const theirs = grow(A.clone(base), 6)
  let mine = grow(load(base), 1)
  document.update(load(base))
  document.serverHas(A.getHeads(base))
  document.update(mine)
  const sent = A.getAllChanges(theirs).slice(1)
  for (const part of [sent.slice(0, 2), sent.slice(2, 4), sent.slice(4)]) {
    document.serverHas(A.getHeads(theirs), part)
    mine = A.applyChanges(mine, part)[0]
    document.update(mine)
    expect([...document.pending.keys()]).toEqual(pending)
  }
  expect(pending).toHaveLength(1)
})

it("whoever waits for a document waits for its newest changes only, as all below them is implied, but is told of hope for those below", () => {
  const { document } = tracked()
  const old = grow(A.init(), 1)
  const doc = grow(A.clone(old), 3)
  document.update(doc)
  const [first, second, third, fourth] = hashes(doc)
  expect(document.tips).toEqual([fourth])
  document.reject([{ hash: third!, reason: "no" }])
  expect(document.isHopeless([fourth!])).toBe(false)
  document.serverHas([second!])
  expect(document.isHopeless([fourth!])).toBe(true)
  expect(document.unsaved.hashes).toEqual([third, fourth])
  expect(first).toBeDefined()
})

it("whoever waits for a document also waits for what only the outbox has, also if something between is gone", () => {
  const { document } = tracked()
  const doc = grow(A.init(), 3)
  const [first, , third] = changesSince(doc, []).map(change => ({ ...change, since: 0 }))
  document.remember([], [first!, third!])
  expect(document.tips.sort()).toEqual([first!.hash, third!.hash].sort())
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
