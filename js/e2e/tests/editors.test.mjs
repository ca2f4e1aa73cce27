// Ten people type into one text at once, in ten browsers that share nothing but the server.

import assert from "node:assert/strict"
import { test } from "node:test"
import { createDocument, notDurable, textOnServer } from "../lib/judge.mjs"
import { between, randomFrom, seedOfRun } from "../lib/random.mjs"
import { World } from "../lib/world.mjs"

const LETTERS = [..."abcdefghij"]
const SECONDS = process.env.HIGHWATER_FULL === "1" ? 60 : 10
// Shorter than what the chip waits before it says "saved", so it has no reason to say so while somebody types.
const PAUSE_MS_MAX = 500
// On a slow machine somebody pauses for longer than that, and then the chip may say so.
const LONG_PAUSE_MS = 600

test(`ten editors type for ${SECONDS} seconds`, async context => {
  const seed = seedOfRun()
  context.diagnostic(`HIGHWATER_SEED=${seed}`)
  const world = await World.open()
  try {
    await typeTogether(world, seed, context)
  } finally {
    await world.close()
  }
})

async function typeTogether(world, seed, context) {
  const documentUrl = await createDocument(world.server.url, { text: "" })
  const pages = []
  for (const _ of LETTERS) pages.push(await world.strangersPage(documentUrl))
  await shownAsSaved(pages)
  const shownBefore = pages.map(page => page.chips.length)
  const end = Date.now() + SECONDS * 1000
  await Promise.all(pages.map((page, at) => typeUntil(end, page, LETTERS[at], randomFrom(seed + at))))
  await Promise.all(pages.map(page => page.isSaved()))
  await shownAsSaved(pages)

  const typed = pages.reduce((sum, page) => sum + page.typed.length, 0)
  const longPauses = pages.reduce((sum, page) => sum + bursts(page) - 1, 0)
  context.diagnostic(`${typed} characters typed, ${longPauses} pauses of more than ${LONG_PAUSE_MS} ms`)
  const { text } = await textOnServer(world.server.url, documentUrl, found => found.length >= typed)
  for (const [at, page] of pages.entries()) {
    assert.equal([...text].filter(letter => letter === LETTERS[at]).length, page.typed.length)
    assert.deepEqual(await notDurable(world.server.url, documentUrl, page.edits.flatMap(({ heads }) => heads)), [])
    assert.equal(page.status.unsaved, 0)
    const chips = page.chips.slice(shownBefore[at]).map(({ state }) => state)
    assert.deepEqual(chips, chips.map((_, n) => (n % 2 === 0 ? "saving" : "saved")))
    assert.ok(chips.length <= 2 * bursts(page), `the chip flickered: ${chips} in ${bursts(page)} bursts of typing`)
  }
}

function shownAsSaved(pages) {
  const isShown = page => page.chips.at(-1)?.state === "saved"
  return Promise.all(pages.map(page => page.until("the chip to say saved", () => isShown(page))))
}

function bursts({ edits }) {
  return 1 + edits.filter(({ at }, n) => n > 0 && at - edits[n - 1].at > LONG_PAUSE_MS).length
}

async function typeUntil(end, page, letter, random) {
  while (Date.now() < end) await page.type(letter, () => between(random, 100, PAUSE_MS_MAX))
}
