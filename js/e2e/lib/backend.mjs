// A program that edits a document over HTTP, as its own process.

import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { within } from "../../interop/lib/wait.mjs"

const END_MS = 30_000

const folder = fileURLToPath(new URL("../backends", import.meta.url))

/** Python, if there is one. */
export const python = ["python3", "python"].find(
  program => spawnSync(program, ["-c", "import sys; sys.exit(sys.version_info < (3, 8))"]).status === 0
)

export class Backend {
  /** What was answered with 200: `{ kind, about, hash }`. */
  edits = []
  #child
  #lines
  #ended

  constructor(program, script, environment) {
    const env = { ...process.env, ...environment }
    this.#child = spawn(program, [`${folder}/${script}`], { env, stdio: ["pipe", "pipe", "inherit"] })
    this.#ended = once(this.#child, "exit")
    this.#lines = this.#read()
  }

  /** Lets it finish the edit that it is at. */
  async end() {
    this.#child.stdin.end()
    const [code] = await within(END_MS, "a backend to end", this.#ended)
    await this.#lines
    if (code !== 0) throw new Error(`a backend ended with ${code}`)
  }

  kill() {
    this.#child.kill("SIGKILL")
  }

  async #read() {
    for await (const line of createInterface({ input: this.#child.stdout })) this.edits.push(JSON.parse(line))
  }
}
