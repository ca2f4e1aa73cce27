// More than browsers let a closing tab send.

import assert from "node:assert/strict"
import { randomBytes } from "node:crypto"
import { test } from "node:test"
import { createDocument, textOnServer } from "../lib/judge.mjs"
import { World } from "../lib/world.mjs"

const PASTES = 10
const BYTES = 15_000

test("what is too large for a closing tab comes when a page is opened", async () => {
  const world = await World.open()
  try {
    const { url } = world.line
    const documentUrl = await createDocument(world.server.url, { text: "" })
    const page = await world.page(documentUrl, { url })
    world.line.cut()
    let pasted = ""
    for (let n = 0; n < PASTES; n++) {
      const text = randomBytes(BYTES).toString("base64")
      pasted += text
      await page.paste(text)
    }
    await page.until("all to be on the device", () => page.edits.length === PASTES && page.status.state === "savedOnDevice")
    await page.close()
    world.line.mend()
    await world.page(undefined, { url })
    const { text } = await textOnServer(world.server.url, documentUrl, found => found.length >= pasted.length)
    assert.ok(text === pasted, `${text.length} of ${pasted.length} characters are there`)
  } finally {
    await world.close()
  }
})
