// A backend in Node: patches a document over HTTP beside people who type into it. The same as patch.py, but that its characters are outside of the basic plane.
//
// It prints a line of JSON for every edit that was answered with 200, and ends when its input does.

import { randomUUID } from "node:crypto"
import { between, oneOf, randomFrom } from "../lib/random.mjs"

const DOCUMENT = `${process.env.HIGHWATER}/v1/docs/${process.env.ID}`
// Every edit of the text puts in a character that nobody else has, so many times.
const FIRST_CHARACTER = Number(process.env.FIRST_CHARACTER ?? 0x20000)
const NAME = process.env.NAME ?? "node"
const TIMES = 3
const ATTEMPTS_MAX = 20

const random = randomFrom(Number(process.env.SEED))

/** The value and the tag, or nothing if the document is not as it was read. */
async function request(method, body, headers = {}) {
  const answer = await fetch(DOCUMENT, { method, headers, body: body && JSON.stringify(body) })
  if (!answer.ok) {
    const problem = await answer.text()
    // A place in the text is not there any more if somebody has taken out what stood before it.
    if (answer.status === 412 || JSON.parse(problem).code === "out_of_bounds") return undefined
    throw new Error(`${method} ${DOCUMENT}: ${answer.status} ${problem}`)
  }
  return { value: await answer.json(), tag: answer.headers.get("etag") }
}

const patch = (operations, tag) => send(operations, "application/json-patch+json", tag)

async function send(body, type, tag) {
  const headers = { "content-type": type, "idempotency-key": randomUUID(), ...(tag && { "if-match": tag }) }
  const answer = await request("PATCH", body, headers)
  if (answer && random() < 0.2) {
    // As if the answer had been lost.
    const again = await request("PATCH", body, headers)
    if (again?.value.hash !== answer.value.hash) throw new Error(`${JSON.stringify(again)} is not ${JSON.stringify(answer)}`)
  }
  return answer?.value.hash
}

/** Makes an edit that depends on what the document holds; if it is strict, on all of it. Gives up if people are faster every time. */
async function onWhatWasRead(edit, { isStrict = true } = {}) {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const { value, tag } = await request("GET")
    const hash = await patch(edit(value), isStrict ? tag : undefined)
    if (hash !== undefined) return hash
  }
}

/** Places are code points here as in the server. */
function inserted(text, token) {
  const characters = [...text]
  characters.splice(between(random, 0, characters.length), 0, token)
  return characters.join("")
}

const take = from => from.splice(between(random, 0, from.length - 1), 1)[0]
const texts = []
const items = []

/** What makes an edit of each kind: what it is about, and the hash of its change. */
const kinds = {
  async splice(token) {
    texts.push(token)
    const edit = ({ text }) => [{ op: "splice", path: "/text", index: between(random, 0, [...text].length), insert: token }]
    return [token, await onWhatWasRead(edit, { isStrict: false })]
  },
  async "set text"(token) {
    texts.push(token)
    return [token, await onWhatWasRead(({ text }) => [{ op: "replace", path: "/text", value: inserted(text, token) }])]
  },
  async "unset text"() {
    if (texts.length === 0) return []
    const token = take(texts)
    const [character] = token
    return [token, await onWhatWasRead(({ text }) => [{ op: "replace", path: "/text", value: text.replaceAll(character, "") }])]
  },
  async merge(_, name, number) {
    return [name, await send({ notes: { [name]: { by: NAME, number } } }, "application/merge-patch+json")]
  },
  async append(_, name) {
    items.push(name)
    return [name, await patch([{ op: "add", path: "/list/-", value: name }])]
  },
  async insert(_, name) {
    items.push(name)
    return [name, await patch([{ op: "splice", path: "/list", index: 0, insert: [name] }])]
  },
  async "set list"(_, name) {
    items.push(name)
    return [name, await onWhatWasRead(({ list }) => [{ op: "replace", path: "/list", value: [...list.slice(0, 1), name, ...list.slice(1)] }])]
  },
  async "unset list"() {
    if (items.length === 0) return []
    const name = take(items)
    return [name, await onWhatWasRead(({ list }) => [{ op: "replace", path: "/list", value: list.filter(item => item !== name) }])]
  },
  async count(_, name) {
    return [name, await patch([{ op: "increment", path: "/count", by: 1 }])]
  },
}

let ended = false
process.stdin.on("end", () => (ended = true)).resume()
for (let number = 1; !ended; number++) {
  const kind = oneOf(random, Object.keys(kinds))
  const token = String.fromCodePoint(FIRST_CHARACTER + number).repeat(TIMES)
  const [about, hash] = await kinds[kind](token, `${NAME}-${number}`, number)
  if (hash) console.log(JSON.stringify({ kind, about, hash }))
}
