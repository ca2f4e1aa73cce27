// The pinned old packages under one roof. They live in a package of their own because their version
// ranges would otherwise be met by newer releases next door.
export { next as Automerge } from "@automerge/automerge"
export { Repo } from "@automerge/automerge-repo"
export { BrowserWebSocketClientAdapter as WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
