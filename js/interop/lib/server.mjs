// Runs a sync server as its own process: start, stop, kill, start again on the same port and folder.

import { spawn } from "node:child_process"
import { EventEmitter, once } from "node:events"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { within } from "./wait.mjs"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const ADDRESS = /ws:\/\/127\.0\.0\.1:(\d+)/
const LOG_LINES_MAX = 400

/** Which server the tests run against: "highwater", or "node" for automerge-repo's own. */
export const serverKind = process.env.HIGHWATER_INTEROP_SERVER ?? "highwater"

/** The program to test. */
export function highwaterBinary() {
  const candidates = process.env.HIGHWATER_BIN
    ? [process.env.HIGHWATER_BIN]
    : [`${root}target/release/highwater`, `${root}target/debug/highwater`]
  const found = candidates.find(existsSync)
  if (!found) throw new Error(`no highwater binary at ${candidates.join(" or ")}; run: cargo build --release`)
  return found
}

function commandLine(kind, port, dataDir) {
  if (kind === "node") {
    const script = `${root}bench/peers/node/server.mjs`
    return [process.execPath, [script, "--gossip", "--port", `${port}`, "--data-dir", dataDir]]
  }
  return [highwaterBinary(), ["serve", "--listen", `127.0.0.1:${port}`, "--data-dir", dataDir]]
}

/** Emits "up" when it listens and "down" when its process has ended. */
export class Server extends EventEmitter {
  #child
  #log = []
  port = 0
  /** More of the program's environment, from the next start on. */
  env = {}

  constructor(dataDir, kind = serverKind) {
    super()
    this.setMaxListeners(100)
    this.dataDir = dataDir
    this.kind = kind
  }

  get url() {
    return `ws://127.0.0.1:${this.port}`
  }

  get pid() {
    return this.#child?.pid
  }

  get running() {
    return this.#child !== undefined
  }

  async start() {
    const [program, args] = commandLine(this.kind, this.port, this.dataDir)
    // Documents are compacted as soon as they have a few changes, so that everything here happens to compacted ones too.
    const env = { HIGHWATER_COMPACT_CHANGES_MIN: "20", ...process.env, ...this.env }
    const child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] })
    this.#child = child
    this.#record(`-- ${program} ${args.join(" ")} (pid ${child.pid})`)
    child.stderr.on("data", data => this.#record(`${data}`))
    const orphaned = () => child.kill("SIGKILL")
    process.once("exit", orphaned)
    child.once("exit", (code, signal) => {
      process.off("exit", orphaned)
      this.#record(`-- ended: code ${code}, signal ${signal}`)
      this.#child = undefined
      this.emit("down", { code, signal })
    })
    this.port = await within(20_000, "the server's address on stdout", this.#address(child))
    this.emit("up")
    return this
  }

  /** SIGTERM; returns the exit code and signal. */
  async stop() {
    return this.#signal("SIGTERM")
  }

  /** SIGKILL, sent before this returns its promise. */
  async kill9() {
    return this.#signal("SIGKILL")
  }

  get log() {
    return this.#log.join("\n")
  }

  async #signal(name) {
    if (!this.#child) return
    const ended = once(this, "down")
    this.#child.kill(name)
    const [result] = await within(30_000, `the server's end after ${name}`, ended)
    return result
  }

  #address(child) {
    return new Promise((resolve, reject) => {
      let text = ""
      child.once("error", reject)
      child.once("exit", code => reject(new Error(`the server ended with ${code} before it listened:\n${this.log}`)))
      child.stdout.on("data", data => {
        this.#record(`${data}`)
        text += data
        const match = ADDRESS.exec(text)
        if (match) resolve(Number(match[1]))
      })
    })
  }

  #record(text) {
    this.#log.push(text.trimEnd())
    if (this.#log.length > LOG_LINES_MAX) this.#log.splice(0, this.#log.length - LOG_LINES_MAX)
  }
}
