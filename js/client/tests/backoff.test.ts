import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { Backoff } from "../src/core/backoff.js"
import { afterClose } from "../src/core/close-codes.js"
import { withToken } from "../src/core/token.js"

describe("backoff", () => {
  it("doubles its limit up to the largest, and starts over after a success", () => {
    const backoff = new Backoff({ min: 100, max: 1000 }, () => 1)
    expect([1, 2, 3, 4, 5, 6].map(() => backoff.next())).toEqual([100, 200, 400, 800, 1000, 1000])
    backoff.reset()
    expect(backoff.next()).toBe(100)
  })

  it("spreads over all of the pause", () => {
    const property = fc.property(fc.double({ min: 0, max: 0.999, noNaN: true }), fc.nat(50), (random, failures) => {
      const backoff = new Backoff({}, () => random)
      for (let n = 0; n < failures; n++) backoff.next()
      expect(backoff.next()).toBe(random * Math.min(30_000, 500 * 2 ** failures))
    })
    fc.assert(property)
  })
})

describe("close codes", () => {
  it("take the server's hint after a restart, up to a limit", () => {
    expect(afterClose(1012, "the server is shutting down; retry in 734 ms")).toEqual({ action: "retry", delay: 734 })
    expect(afterClose(1012, "")).toEqual({ action: "retry" })
    expect(afterClose(1012, "retry in 99999999 ms")).toEqual({ action: "retry", delay: 300_000 })
    expect(afterClose(1013, "retry in 734 ms")).toEqual({ action: "retry" })
  })
})

describe("a token", () => {
  it("is put into the url without harm to what is there", () => {
    expect(withToken("wss://example.org/v1/sync?a=b", "c&d")).toBe("wss://example.org/v1/sync?a=b&token=c%26d")
    expect(withToken("wss://example.org", undefined)).toBe("wss://example.org")
  })
})
