// A sync server made of automerge-repo's own parts and nothing else.
//
// It exists to be compared with: the benchmarks measure it beside Highwater, and the interop tests
// can be pointed at it to see what real clients do with the server they were written against.
//
//   node server.mjs [--port 0] [--data-dir ./node-data] [--gossip]
//
// Once it listens, it prints one line that contains its ws:// address.

import { mkdirSync } from "node:fs"
import { createServer } from "node:http"
import { parseArgs } from "node:util"
import { Repo } from "@automerge/automerge-repo"
import { NodeWSServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { NodeFSStorageAdapter } from "@automerge/automerge-repo-storage-nodefs"
import { WebSocketServer } from "ws"

const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    "data-dir": { type: "string", default: "./node-data" },
    gossip: { type: "boolean", default: false },
  },
})

const dataDir = options["data-dir"]
mkdirSync(dataDir, { recursive: true })

const http = createServer()
const sockets = new WebSocketServer({ server: http })

const repo = new Repo({
  network: [new NodeWSServerAdapter(sockets)],
  storage: new NodeFSStorageAdapter(dataDir),
  peerId: "automerge-repo-node",
  // A server announces nothing by itself; it answers whoever asks.
  sharePolicy: async () => false,
  enableRemoteHeadsGossiping: options.gossip,
})

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, async () => {
    http.close()
    await repo.shutdown()
    process.exit(0)
  })
}

// The repo attaches to the sockets once it has read its storage id; a client that came earlier would
// wait in vain for an answer to its join.
await repo.storageId()
http.on("error", error => {
  console.error(error.message)
  process.exit(1)
})
http.listen(Number(options.port), "127.0.0.1", () => {
  console.log(`automerge-repo (Node) at ws://127.0.0.1:${http.address().port}, data in ${dataDir}`)
})
