// A page whose last words go out with sendBeacon: it cannot choose a content type, wait for an answer, or be asked again.

import assert from "node:assert/strict"
import { test } from "node:test"
import * as A from "@automerge/automerge"
import { generateAutomergeUrl } from "@automerge/automerge-repo"
import { notDurable, textOnServer } from "../lib/judge.mjs"
import { World } from "../lib/world.mjs"

/** Two changes, the second of which builds on the first. */
function changes() {
  const doc = A.change(A.from({ text: "said by " }), doc => A.splice(doc, ["text"], 8, 0, "a beacon"))
  return { bytes: A.getAllChanges(doc).flatMap(change => [...change]), heads: A.getHeads(doc), text: doc.text }
}

/** Sends bytes from a page of the site, which is of another origin than the server, and closes it at once. */
async function beacon(world, documentUrl, bytes) {
  const { page } = await world.page()
  const url = new URL(`/v1/docs/${documentUrl}/changes`, world.server.url.replace(/^ws/, "http")).href
  const isQueued = await page.evaluate(([url, bytes]) => navigator.sendBeacon(url, new Uint8Array(bytes)), [url, bytes])
  await page.close()
  assert.ok(isQueued, "the browser did not take the beacon")
}

test("what a page says with sendBeacon as it closes is durable", async () => {
  const world = await World.open()
  try {
    const { bytes, heads, text } = changes()
    const documentUrl = generateAutomergeUrl()
    await beacon(world, documentUrl, bytes)
    const found = await textOnServer(world.server.url, documentUrl, found => found === text)
    assert.equal(found.text, text)
    assert.deepEqual(await notDurable(world.server.url, documentUrl, heads), [])
  } finally {
    await world.close()
  }
})
