// One round: somebody opens a document, types, and the page comes to its end. Then the server is asked.

import { BrowserStalledError } from "./app-page.mjs"
import { createDocument, notDurable, textOnServer } from "./judge.mjs"
import { between, oneOf, randomFrom } from "./random.mjs"

const ALPHABET = "abcdefghijklmnopqrstuvwxyz "
const PAUSES_MS_MAX = [0, 15, 80, 200]

/** Plays one round, and says what has become of what was typed. A new document is made by the page itself. */
export async function playRound(world, ending, seed, { isNew = false } = {}) {
  const scene = await setScene(world, ending, seed, isNew)
  const { page, typeAll } = scene
  const end = await ending.prepare(scene)
  await typeAll()
  await end()
  return judge(world, ending, scene, page)
}

async function setScene(world, ending, seed, isNew) {
  const random = randomFrom(seed)
  const { server, line, profile, site } = world
  const url = ending.onLine ? line.url : server.url
  const page = await world.page(isNew ? "new" : await createDocument(server.url, { text: "" }), { url })
  const rest = Array.from({ length: between(random, 5, 45) }, () => oneOf(random, [...ALPHABET]))
  const pauseMax = oneOf(random, PAUSES_MS_MAX)
  const type = count => page.type(rest.splice(0, count).join(""), () => between(random, 0, pauseMax))
  const scene = { server, line, profile, site, random, page, url, documentUrl: page.url }
  return Object.assign(scene, {
    typeAll: () => type(rest.length),
    typeSome: () => type(between(random, 0, rest.length - 1)),
    idlePage: () => world.page(undefined, { url }),
    ended: () => (scene.endedAt = Date.now()),
  })
}

async function judge(world, ending, scene, page) {
  const { documentUrl, endedAt } = scene
  const { text } = page
  const stalledMs = ending.stalledMs?.[world.client]
  const look = () => textOnServer(world.server.url, documentUrl, found => found.length >= text.length, { stalledMs })
  const atOnce = await look()
  let later = atOnce
  await ending.after?.(scene)
  if (lost(text, later) > 0) later = await withPage(() => scene.idlePage(), look)
  let reopened = later
  if (lost(text, later) > 0) reopened = await withPage(() => world.page(documentUrl, { url: scene.url }), look)
  const missing = lost(text, later)
  const result = {
    typed: text.length,
    lostAtOnce: lost(text, atOnce),
    lostLater: missing,
    lostForEver: lost(text, reopened),
    arrivedMs: Math.max(0, atOnce.at - endedAt),
    oldestLostMs: missing > 0 ? endedAt - page.typedAt(text.length - missing) : 0,
    savedButLost: savedButLost(page, text, later),
    savedButNotDurable: world.client === "highwater" ? await notDurable(world.server.url, documentUrl, page.savedHashes) : [],
    mixedUp: !text.startsWith(reopened.text),
  }
  await clearAway(scene)
  return result
}

/** What came of the round is known: a browser that does not close its pages any more changes nothing of it. */
async function clearAway({ page, otherTab, profile }) {
  try {
    await page.close()
    await otherTab?.close()
  } catch (error) {
    if (!(error instanceof BrowserStalledError)) throw error
    console.warn(`${error.message}; it goes on with another browser`)
    await profile.renew()
  }
}

async function withPage(open, work) {
  const page = await open()
  const result = await work()
  await page.close()
  return result
}

/** How many of the typed characters are not there. */
function lost(typed, { text }) {
  let same = 0
  while (same < typed.length && typed[same] === text[same]) same += 1
  return typed.length - same
}

/** How many of those had been shown as saved. */
function savedButLost(page, typed, found) {
  return Math.max(0, page.savedCount - (typed.length - lost(typed, found)))
}

/** What is wrong with a round of Highwater's client, in words. */
export function complaints(ending, result) {
  const found = []
  const { savedButLost, savedButNotDurable, lostAtOnce, lostLater, oldestLostMs, mixedUp } = result
  if (savedButLost > 0) found.push(`${savedButLost} characters that had been shown as saved are lost`)
  if (savedButNotDurable.length > 0) found.push(`shown as saved and not durable: ${savedButNotDurable.join(", ")}`)
  if (mixedUp) found.push("the text on the server is not a beginning of what was typed")
  if (!ending.deviceOnly && lostAtOnce > 0) found.push(`${lostAtOnce} characters did not reach the server at once`)
  if (ending.deviceOnly && lostLater > 0 && oldestLostMs > LAST_MS) {
    found.push(`${lostLater} characters are lost, the oldest typed ${oldestLostMs} ms before the end`)
  }
  return found
}

/** What was typed so shortly before the end of a process may not be on the device yet. */
const LAST_MS = 20
