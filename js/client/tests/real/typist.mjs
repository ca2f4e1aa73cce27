// A program that types without pause and is killed: see killed.test.ts. Prints each change's hash and time.

import { Repo } from "@automerge/automerge-repo"
import * as A from "@automerge/automerge"
import { HighwaterClientAdapter } from "../../dist/index.js"
import { FileOutboxStore } from "../../dist/node/index.js"

const [, , url, outbox] = process.argv
const adapter = new HighwaterClientAdapter(url, { outbox: new FileOutboxStore(outbox) })
const repo = new Repo({ network: [adapter] })
adapter.attach(repo)
const handle = repo.create({ n: 0 })
process.stdout.write(`document ${handle.documentId}\n`)
setInterval(() => {
  handle.change(doc => (doc.n += 1))
  process.stdout.write(`${A.getHeads(handle.doc())[0]} ${Date.now()}\n`)
}, 4)
