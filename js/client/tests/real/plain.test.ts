// Bare documents against the built server: the plain protocol, questions, and changes in a request.

import { randomUUID } from "node:crypto"
import { join } from "node:path"
import * as A from "@automerge/automerge"
import { describe, expect, vi } from "vitest"
import { changesUrl, postChanges } from "../../src/core/http.js"
import { changesSince } from "../../src/core/changes.js"
import { UnsavedChangesError } from "../../src/index.js"
import { FileOutboxStore } from "../../src/node/index.js"
import { newDocumentId, openDocument, sendLeftovers } from "../../src/plain/index.js"
import { test, type World } from "./world.js"

interface Page {
  title: string
}

const TIMEOUT = { timeout: 20_000 }
const open = (url: string, id: string) => openDocument<Page>(url, id, { backoff: { min: 50, max: 500 }, timeout: 20_000 })
const hashesOf = (doc: A.Doc<unknown>) => A.getChangesMetaSince(doc, []).map(({ hash }) => hash)

async function titleSeenBySomebodyElse(world: World, id: string): Promise<string | undefined> {
  const other = await open(world.server.url, id)
  const { title } = other.doc
  other.disconnect()
  return title
}

describe("a bare document", () => {
  test("that is deleted on the server is rejected, and cannot be opened any more", async ({ world }) => {
    const id = newDocumentId()
    const doc = await open(world.server.url, id)
    doc.change(page => (page.title = "Tides"))
    await doc.whenSaved(TIMEOUT)
    await fetch(`${world.server.url.replace("ws", "http")}/v1/docs/${id}`, { method: "DELETE" })
    await vi.waitFor(() => expect(doc.saveStatus().state).toBe("rejected"), TIMEOUT)
    await expect(doc.close(TIMEOUT)).rejects.toMatchObject({ reason: "rejected", documents: [{ hashes: hashesOf(doc.doc) }] })
    await expect(open(world.server.url, id)).rejects.toThrow("the document was deleted")
    doc.disconnect()
  })

  test("is saved, and closed when all is", async ({ world }) => {
    const id = newDocumentId()
    const doc = await open(world.server.url, id)
    doc.change(page => (page.title = "Tides"))
    await doc.whenSaved(TIMEOUT)
    const [hash] = hashesOf(doc.doc)
    expect(await doc.isSaved(hash!)).toBe(true)
    expect(await doc.isSaved("00".repeat(32))).toBe(false)
    doc.change(page => (page.title = "High tide"))
    await doc.close(TIMEOUT)
    await world.server.kill9()
    await world.server.start()
    expect(await titleSeenBySomebodyElse(world, id)).toBe("High tide")
  })

  test("meets one that is opened with automerge-repo", async ({ world }) => {
    const { adapter, repo } = world.client()
    const handle = repo.create<Page>({ title: "from the repo" })
    await adapter.whenSaved(handle, TIMEOUT)
    const doc = await open(world.server.url, handle.documentId)
    expect(doc.doc.title).toBe("from the repo")
    doc.change(page => (page.title = "from the bare one"))
    await new Promise<void>(resolve => {
      const look = () => handle.doc().title === "from the bare one" && resolve()
      handle.on("change", look)
      look()
    })
    await doc.close(TIMEOUT)
  })

  test("waits over a cut line, and says what is missing without a server", async ({ world }) => {
    const line = await world.line()
    const id = newDocumentId()
    const doc = await open(line.url, id)
    line.cut()
    doc.change(page => (page.title = "while it was cut"))
    const saved = doc.whenSaved(TIMEOUT)
    line.mend()
    await saved
    await world.server.kill9()
    doc.change(page => (page.title = "while there was no server"))
    const error = await doc.close({ timeout: 300 }).catch((error: unknown) => error)
    expect(error).toBeInstanceOf(UnsavedChangesError)
    expect((error as UnsavedChangesError).documents).toMatchObject([{ documentId: id, hashes: [hashesOf(doc.doc)[1]] }])
    await world.server.start()
    await doc.close(TIMEOUT)
    expect(await titleSeenBySomebodyElse(world, id)).toBe("while there was no server")
  })

  test("is told by name what the server refuses", async ({ world }) => {
    const id = newDocumentId()
    const doc = await open(world.server.url, id)
    doc.change(page => (page.title = "first"))
    await doc.whenSaved(TIMEOUT)
    // Two changes with one number by one actor cannot both be part of a document.
    const twin = A.change(A.init<Page>(A.getActorId(doc.doc)), page => (page.title = "second"))
    const pending = changesSince(twin, []).map(change => ({ ...change, since: 0, stored: false }))
    const answer = await postChanges(fetch as any, changesUrl(world.server.url, id, undefined), pending, false)
    expect(answer).toMatchObject({ durable: [], rejected: [{ hash: pending[0]!.hash }] })
    await doc.close(TIMEOUT)
  })
})

test("what a session has left is sent without opening its document", async ({ world }) => {
  const outbox = new FileOutboxStore(join(world.folder, "outbox"))
  const id = newDocumentId()
  const doc = await openDocument<Page>(world.server.url, id, { outbox, ...TIMEOUT })
  doc.change(page => (page.title = "saved"))
  await doc.whenSaved(TIMEOUT)
  await world.server.kill9()
  doc.change(page => (page.title = "left"))
  await expect(doc.close({ timeout: 300 })).rejects.toThrow(UnsavedChangesError)
  doc.disconnect()
  expect(await sendLeftovers(world.server.url, { outbox })).toMatchObject([{ documentId: id, hashes: A.getHeads(doc.doc) }])
  await world.server.start()
  expect(await sendLeftovers(world.server.url, { outbox })).toEqual([])
  expect((await outbox.load()).changes).toEqual([])
  expect(await titleSeenBySomebodyElse(world, id)).toBe("left")
})

test("changes in a request are there for everybody, also sent twice", async ({ world }) => {
  const id = newDocumentId()
  const made = A.from<{ title: string }>({ title: `posted ${randomUUID()}` })
  const pending = changesSince(made, []).map(change => ({ ...change, since: 0, stored: false }))
  const url = changesUrl(world.server.url, id, undefined)
  for (let times = 0; times < 2; times++) {
    expect(await postChanges(fetch as any, url, pending, true)).toMatchObject({ durable: hashesOf(made), rejected: [] })
  }
  expect(await titleSeenBySomebodyElse(world, id)).toBe(made.title)
})
