// People type into a text in their browsers, while backends in Python and Node patch the same document over HTTP.

import assert from "node:assert/strict"
import { test } from "node:test"
import { Backend, python } from "../lib/backend.mjs"
import { notDurable, textOnServer } from "../lib/judge.mjs"
import { between, randomFrom, seedOfRun } from "../lib/random.mjs"
import { World } from "../lib/world.mjs"

const SECONDS = process.env.HIGHWATER_FULL === "1" ? 60 : 12
/** The letters of each person. The last one also puts the caret somewhere else now and then. */
const ALPHABETS = ["abcdefgh", "ijklmnop", "ABCDEFGH"]
const WANDERER = ALPHABETS.length - 1
const PAUSE_MS_MAX = 120

test(`people type for ${SECONDS} seconds while backends in Python and Node patch the document`, async context => {
  const seed = seedOfRun()
  context.diagnostic(`HIGHWATER_SEED=${seed}`)
  if (!python) {
    console.warn("\n*** THERE IS NO python3: THE BACKEND IN PYTHON IS LEFT OUT, A SECOND ONE IN NODE TAKES ITS PLACE ***\n")
  }
  const world = await World.open()
  const backends = []
  try {
    await editTogether(world, seed, backends, context)
  } catch (error) {
    error.message += `\n${world.server.log}`
    throw error
  } finally {
    for (const backend of backends) backend.kill()
    await world.close()
  }
})

async function editTogether(world, seed, backends, context) {
  const server = world.server.url.replace(/^ws/, "http")
  const { id, url } = await create(server, { text: "", list: [], notes: {}, count: { $counter: 0 } })
  const pages = []
  for (const _ of ALPHABETS) pages.push(await world.strangersPage(url))
  const environment = { HIGHWATER: server, ID: id }
  backends.push(new Backend(process.execPath, "patch.mjs", { ...environment, SEED: `${seed}` }))
  backends.push(
    python
      ? new Backend(python, "patch.py", { ...environment, SEED: `${seed}` })
      : new Backend(process.execPath, "patch.mjs", { ...environment, SEED: `${seed + 1}`, NAME: "python", FIRST_CHARACTER: `${0x4e00}` })
  )
  const end = Date.now() + SECONDS * 1000
  await Promise.all(pages.map((page, at) => typeUntil(end, page, at, randomFrom(seed + at))))
  await Promise.all(backends.map(backend => backend.end()))
  await Promise.all(pages.map(page => page.isSaved()))

  const document = await read(server, id)
  const edits = backends.flatMap(backend => backend.edits)
  context.diagnostic(`${pages.map(page => page.typed.length)} characters typed, ${backends.map(({ edits }) => edits.length)} edits answered`)
  for (const { edits } of backends) assert.ok(edits.length > 0, "a backend made no edit")
  sameAsMade(document, edits)
  sameAsTyped(document, pages)
  const hashes = [...edits.map(({ hash }) => hash), ...pages.flatMap(page => page.edits.flatMap(({ heads }) => heads))]
  assert.deepEqual(await notDurable(world.server.url, url, hashes), [])
  // Everybody has the same: the browsers, and somebody who has never seen the document.
  await Promise.all(pages.map(page => page.shows(document.text)))
  const { text } = await textOnServer(world.server.url, url, found => found === document.text)
  assert.equal(text, document.text)
}

/** What backends were answered 200 for is there, and what they took out is not. */
function sameAsMade({ text, list, notes, count }, edits) {
  const about = (...kinds) => edits.filter(({ kind }) => kinds.includes(kind)).map(({ about }) => about)
  const without = (made, unmade) => made.filter(it => !unmade.includes(it)).sort()
  const characters = [...text].filter(character => character.codePointAt(0) >= 0x4e00)
  assert.deepEqual(characters.sort(), without(about("splice", "set text"), about("unset text")).flatMap(token => [...token]).sort())
  assert.deepEqual([...list].sort(), without(about("append", "insert", "set list"), about("unset list")))
  assert.deepEqual(Object.keys(notes).sort(), about("merge").sort())
  for (const [name, note] of Object.entries(notes)) assert.equal(`${note.by}-${note.number}`, name)
  assert.deepEqual(count, { $counter: about("count").length })
}

/** What people typed is there, and in their order where they only went on. */
function sameAsTyped({ text }, pages) {
  for (const [at, page] of pages.entries()) {
    const found = [...text].filter(character => ALPHABETS[at].includes(character))
    const typed = [...page.text]
    if (at === WANDERER) assert.deepEqual(found.sort(), typed.sort())
    else assert.equal(found.join(""), typed.join(""))
  }
}

async function typeUntil(end, page, at, random) {
  const letters = ALPHABETS[at]
  for (let count = 0; Date.now() < end; count++) {
    if (at === WANDERER && count % 10 === 0) await moveCaret(page, random())
    await page.type(letters[count % letters.length], () => between(random, 0, PAUSE_MS_MAX))
  }
}

function moveCaret({ page }, share) {
  return page.evaluate(share => {
    const field = document.querySelector("textarea")
    const place = [...field.value].slice(0, Math.floor(share * [...field.value].length)).join("").length
    field.setSelectionRange(place, place)
  }, share)
}

async function create(server, content) {
  const answer = await fetch(`${server}/v1/docs`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(content),
  })
  assert.equal(answer.status, 201)
  return answer.json()
}

async function read(server, id) {
  const answer = await fetch(`${server}/v1/docs/${id}`)
  assert.equal(answer.status, 200)
  return answer.json()
}
