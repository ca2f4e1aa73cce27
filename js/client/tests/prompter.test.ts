import * as A from "@automerge/automerge"
import { expect, it } from "vitest"
import { Prompter } from "../src/repo/prompter.js"
import type { SyncLikeMessage } from "../src/repo/messages.js"

/** The message in which a server sends all of a document. */
function fromServer(doc: A.Doc<unknown>): SyncLikeMessage {
  const [, request] = A.generateSyncMessage(A.init(), A.initSyncState())
  const [, state] = A.receiveSyncMessage(doc, A.initSyncState(), request!)
  const [, data] = A.generateSyncMessage(doc, state)
  return { type: "sync", senderId: "s" as any, targetId: "c" as any, documentId: "doc", data: data! }
}

it("keeps of the server's last message only what it shows again", async () => {
  const shown: SyncLikeMessage[] = []
  const prompter = new Prompter(message => shown.push(message))
  const doc = A.from({ text: "long ".repeat(1000) })
  const message = fromServer(doc)
  const decoded = A.decodeSyncMessage(message.data)
  expect(decoded.changes.length).toBeGreaterThan(0)
  prompter.heard(message, decoded)
  // Whoever still had the bytes would stumble over this.
  message.data.fill(0)
  await prompter.prompt("doc")
  const { heads, need, changes } = A.decodeSyncMessage(shown[0]!.data)
  expect([heads, need, changes]).toEqual([A.getHeads(doc), [], []])
})

it("does not show again that the server has nothing", async () => {
  const shown: SyncLikeMessage[] = []
  const prompter = new Prompter(message => shown.push(message))
  const [one, nothing] = [fromServer(A.from({ n: 0 })), fromServer(A.init())]
  for (const message of [one, nothing]) prompter.heard(message, A.decodeSyncMessage(message.data))
  await prompter.prompt("doc")
  expect(shown).toEqual([])
})
