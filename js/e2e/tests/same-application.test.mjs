// The same application with the stock adapter and with Highwater's.

import assert from "node:assert/strict"
import { readFile } from "node:fs/promises"
import { test } from "node:test"
import { createDocument, textOnServer } from "../lib/judge.mjs"
import { World } from "../lib/world.mjs"

const source = name => readFile(new URL(`../app/repo.${name}.ts`, import.meta.url), "utf8")

test("only the lines that construct the adapter differ", async () => {
  const stock = (await source("stock")).split("\n")
  const ours = (await source("highwater")).split("\n")
  assert.deepEqual(ours.filter(line => !stock.includes(line)), [
    'import { HighwaterClientAdapter } from "@highwater/client"',
    "  const adapter = new HighwaterClientAdapter(url)",
    "  return { repo, source: adapter.attach(repo) }",
  ])
})

test("pages with either adapter edit one text together", async () => {
  const world = await World.open()
  try {
    const { url } = world.server
    const documentUrl = await createDocument(url, { text: "" })
    const ours = await world.strangersPage(documentUrl, { client: "highwater" })
    const stock = await world.strangersPage(documentUrl, { client: "stock" })
    await ours.type("one ")
    await stock.shows("one ")
    await stock.type("two ")
    await ours.shows("one two ")
    await ours.type("three")
    await stock.shows("one two three")
    await ours.isSaved()
    assert.equal((await textOnServer(url, documentUrl, text => text.length >= 13)).text, "one two three")
  } finally {
    await world.close()
  }
})
