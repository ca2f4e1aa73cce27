import { describe, expect, it } from "vitest"
import type { Environment } from "../src/core/environment.js"
import { postChanges } from "../src/core/http.js"

const change = (hash: string) => ({ hash, deps: [], bytes: new Uint8Array([1]), since: 0, stored: false })

function answering(status: number, body: unknown) {
  const response = { ok: status === 200, status, json: async () => body }
  return (async () => response) as unknown as NonNullable<Environment["fetch"]>
}

describe("posted changes", () => {
  it("of a deleted document are refused by name", async () => {
    const answer = await postChanges(answering(410, { code: "deleted" }), "http://x", [change("a"), change("b")], false)
    const reason = "the document was deleted"
    expect(answer).toEqual({ durable: [], rejected: [{ hash: "a", reason }, { hash: "b", reason }] })
  })

  it("say nothing if the server does not answer with success", async () => {
    for (const status of [404, 422, 500, 503]) {
      expect(await postChanges(answering(status, {}), "http://x", [change("a")], false)).toBeUndefined()
    }
  })
})
