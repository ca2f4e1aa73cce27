// Every command and program of docs/backends.md, in order, against a server of its own: what it answers is what is shown.

import { execFile, spawnSync } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, delimiter, dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { blocksOf, isAsShown } from "../lib/document.mjs"
import { highwaterBinary, Server } from "../lib/server.mjs"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const DOCUMENT = "docs/backends.md"
/** Where cargo puts the examples when it builds the tests. */
const examples = process.env.HIGHWATER_EXAMPLES ?? join(root, "target/debug/examples")
/** Where the server listens in the document. */
const SHOWN_ADDRESS = "127.0.0.1:3030"
const COMMAND_MS = 60_000

const blocks = blocksOf(await readFile(join(root, DOCUMENT), "utf8"))
const hasPython = spawnSync("python3", ["-c", "import sys; sys.exit(sys.version_info < (3, 8))"]).status === 0
const needsPython = ({ kind, text }) => kind === "command" && /\bpython3\b/.test(text)
/** What comes after a program that was left out is run as well, but what it answers may be something else. */
const leftOutAt = hasPython ? Infinity : blocks.findIndex(needsPython)

describe(DOCUMENT, () => {
  let folder, server

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "highwater-docs-"))
    server = await new Server(join(folder, "data")).start()
    await writeFile(join(folder, "environment"), "")
    // The client of this repository, and beside it the packages that it was built with.
    await mkdir(join(folder, "node_modules", "@highwater"), { recursive: true })
    await symlink(join(root, "js/client"), join(folder, "node_modules/@highwater/client"))
    await symlink(join(root, "js/client/node_modules/@automerge"), join(folder, "node_modules/@automerge"))
    if (!hasPython) console.warn("\n*** LEFT OUT: THERE IS NO python3, SO WHAT IS SHOWN IN PYTHON IS NOT TESTED ***\n")
  })

  afterAll(async () => {
    await server?.kill9()
    await rm(folder, { recursive: true, force: true, maxRetries: 5 })
  })

  for (const [at, block] of blocks.entries()) {
    const { kind, line, name, text } = block
    test.skipIf(needsPython(block) && !hasPython)(`line ${line}: ${name ?? text.split("\n", 1)[0]}`, async () => {
      const here = text.replaceAll(SHOWN_ADDRESS, `127.0.0.1:${server.port}`)
      if (kind === "program") return writeFile(join(folder, name), here)
      const output = kind === "rust" ? await runRust(block) : await runCommand(here)
      if (block.answer && at < leftOutAt) check(block.answer, output)
    })
  }

  test("runs every program that it shows", () => {
    const commands = blocks.filter(({ kind }) => kind === "command").map(({ text }) => text)
    const programs = blocks.filter(({ kind }) => kind === "program").map(({ name, text }) => ({ name, text }))
    const isUsed = ({ name }) =>
      commands.some(command => command.includes(name)) || programs.some(({ text }) => text.includes(`from ${name.replace(".py", "")} import`))
    expect(programs.filter(program => !isUsed(program)).map(({ name }) => name)).toEqual([])
  })

  /** Runs a command in a shell that knows what earlier ones have exported. */
  function runCommand(command) {
    const script = `. ./environment\nset -e\n${command}\nexport -p > ./environment\n`
    return runHere("bash", ["-c", script])
  }

  /** A program in Rust is the one of this repository that its first line names, so that it is compiled and checked like all others: with the tests in Rust. */
  async function runRust({ name, text }) {
    const shown = text.split("\n").slice(1).join("\n").trim()
    expect(await readFile(join(root, name), "utf8")).toContain(shown)
    const program = join(examples, basename(name, ".rs"))
    if (!existsSync(program)) throw new Error(`${program} is not there; build it with: cargo build --workspace --examples`)
    return runCommand(program)
  }

  function runHere(program, args) {
    const PATH = `${dirname(highwaterBinary())}${delimiter}${process.env.PATH}`
    const env = { ...process.env, PATH }
    return new Promise((resolve, reject) => {
      execFile(program, args, { cwd: folder, env, timeout: COMMAND_MS }, (error, stdout, stderr) => {
        if (error) reject(new Error(`${error.message}\n${stdout}\n${stderr}\n${server.log}`))
        else resolve(stdout)
      })
    })
  }

  function check(answer, output) {
    const isRight = isAsShown(answer, output)
    // Shows both where they differ.
    if (!isRight) expect(output.trimEnd(), `the answer in line ${answer.line}`).toBe(answer.text)
  }
})
