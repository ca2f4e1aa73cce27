// The ledger against a plain model: the changes that are not below anything that was called durable.

import * as A from "@automerge/automerge"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { changesSince, joinChunks, splitChunks, type Change } from "../src/core/changes.js"
import { Ledger } from "../src/core/ledger.js"
import { runs } from "./fake/runs.js"

const change = (hash: string, deps: string[]): Change => ({ hash, deps, bytes: new Uint8Array() })

/** A random graph of changes in causal order. */
const graph = fc.array(fc.array(fc.nat(), { maxLength: 3 }), { minLength: 1, maxLength: 30 }).map(all =>
  all.map((deps, at) => change(`${at}`, at === 0 ? [] : [...new Set(deps.map(dep => `${dep % at}`))]))
)

function below(changes: Change[], hashes: Iterable<string>): Set<string> {
  const found = new Set<string>()
  const visit = (hash: string) => {
    if (found.has(hash)) return
    found.add(hash)
    changes[Number(hash)]!.deps.forEach(visit)
  }
  for (const hash of hashes) visit(hash)
  return found
}

describe("the ledger", () => {
  it("agrees with the model, whatever comes first: the change or its acknowledgement", () => {
    const steps = fc.array(fc.record({ acknowledge: fc.boolean(), which: fc.nat() }), { maxLength: 60 })
    const property = fc.property(graph, steps, (changes, steps) => {
      const ledger = new Ledger()
      const here: Change[] = []
      const durable = new Set<string>()
      const isHere = (hash: string) => Number(hash) < here.length
      for (const { acknowledge, which } of steps) {
        if (acknowledge) {
          const hash = `${which % changes.length}`
          durable.add(hash)
          ledger.markDurable([hash], isHere)
        } else if (here.length < changes.length) {
          const next = changes[here.length]!
          here.push(next)
          ledger.add([next], here.length)
          ledger.catchUp(isHere)
        }
        const covered = below(changes, [...durable].filter(isHere))
        const expected = here.map(({ hash }) => hash).filter(hash => !covered.has(hash))
        expect([...ledger.pending.keys()]).toEqual(expected)
      }
    })
    fc.assert(property, runs(3000))
  })

  it("gives up hope for what builds on a refused change, and only for that", () => {
    const ledger = new Ledger()
    ledger.add([change("0", []), change("1", ["0"]), change("2", ["1"]), change("3", ["0"])], 0)
    ledger.reject([{ hash: "1", reason: "no" }])
    expect(ledger.hopeful()).toEqual(["0", "3"])
    expect(ledger.rejected).toEqual([{ hash: "1", reason: "no" }])
  })

  it("does not list the refusal of a change that it does not know, and counts it when the change comes", () => {
    const ledger = new Ledger()
    ledger.reject([{ hash: "1", reason: "no" }])
    expect(ledger.rejected).toEqual([])
    ledger.add([change("0", []), change("1", ["0"]), change("2", ["1"])], 0)
    expect(ledger.rejected).toEqual([{ hash: "1", reason: "no" }])
    expect(ledger.hopeful()).toEqual(["0"])
  })

  it("forgets the refusal of a change that became durable after all, and of one that is not part of the document", () => {
    const ledger = new Ledger()
    ledger.reject([{ hash: "0", reason: "no" }, { hash: "1", reason: "no" }])
    ledger.markDurable(["0"], () => true)
    ledger.replace([], 0)
    ledger.add([change("0", []), change("1", ["0"])], 0)
    expect(ledger.rejected).toEqual([])
  })

  it("keeps a bounded number of refusals of what it does not know, the newest, and all of what it knows", () => {
    const ledger = new Ledger()
    const refusals = Array.from({ length: 5000 }, (_, n) => ({ hash: `${n}`, reason: "no" }))
    ledger.add([change("0", [])], 0)
    ledger.reject(refusals)
    ledger.add(refusals.slice(1).map(({ hash }) => change(hash, [])), 0)
    expect(ledger.rejected).toEqual([refusals[0], ...refusals.slice(-1000)])
  })

  it("has what the outbox gives back in causal order, whatever the order in which tabs wrote it", () => {
    const property = fc.property(graph, fc.infiniteStream(fc.nat()), (changes, random) => {
      const ledger = new Ledger()
      const shuffled = changes.map(change => ({ change, at: random.next().value as number })).sort((a, b) => a.at - b.at)
      ledger.restore(shuffled.map(({ change }) => ({ ...change, since: 0 })))
      const seen = new Set<string>()
      for (const { hash, deps } of ledger.pending.values()) {
        expect(deps.every(dep => seen.has(dep))).toBe(true)
        seen.add(hash)
      }
      expect(seen.size).toBe(changes.length)
    })
    fc.assert(property, runs(300))
  })

  it("keeps the age of what stays pending", () => {
    const ledger = new Ledger()
    ledger.add([change("0", [])], 5)
    ledger.replace([change("0", []), change("1", ["0"])], 9)
    expect([...ledger.pending.values()].map(({ since }) => since)).toEqual([5, 9])
  })
})

describe("chunks", () => {
  it("are taken apart and named as automerge does", () => {
    let doc = A.from<any>({ text: "" })
    for (let n = 0; n < 5; n++) doc = A.change(doc, d => (d[`key ${n}`] = "x".repeat(200 * n)))
    const changes = changesSince(doc, [])
    expect(changes.map(({ hash }) => hash)).toEqual(A.getAllChanges(doc).map(one => A.decodeChange(one).hash))
    const [copy] = A.applyChanges(A.init(), splitChunks(joinChunks(changes.map(({ bytes }) => bytes))))
    expect(A.getHeads(copy)).toEqual(A.getHeads(doc))
  })

  it("that are none or cut off are named", () => {
    const [bytes] = changesSince(A.from({ n: 1 }), []).map(({ bytes }) => bytes)
    expect(() => splitChunks(new Uint8Array(20))).toThrow("no automerge chunk at byte 0")
    expect(() => splitChunks(bytes!.subarray(0, -1))).toThrow("cut off")
    expect(() => splitChunks(bytes!.subarray(0, 9))).toThrow("cut off")
  })
})
