// A browser with a profile of its own, which outlives the browser's process.

import { once } from "node:events"
import { existsSync } from "node:fs"
import { chromium } from "playwright-core"
import { within } from "../../interop/lib/wait.mjs"
import { AppPage } from "./app-page.mjs"

const START_MS = 30_000

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
]

/** What the tools switch off for pages that are tested, but people have. */
const AS_FOR_PEOPLE = ["--disable-back-forward-cache"]

/** The browser to test with. */
export function chromiumPath() {
  const path = process.env.CHROMIUM ?? "/usr/bin/chromium"
  if (!existsSync(path)) {
    throw new Error(`no Chromium at ${path}: install it (Debian, Ubuntu: apt-get install chromium), or name it in CHROMIUM`)
  }
  return path
}

export class Profile {
  #folder
  #context
  #pids = new Map()

  constructor(folder) {
    this.#folder = folder
  }

  async open() {
    this.#context = await chromium.launchPersistentContext(this.#folder, {
      executablePath: chromiumPath(),
      headless: true,
      args: FLAGS,
      ignoreDefaultArgs: AS_FOR_PEOPLE,
      timeout: START_MS,
    })
    return this
  }

  /** A page at this address, once the application runs in it. */
  page(url) {
    return openPage(this.#context, url)
  }

  /** The same in a profile of its own that is forgotten at the end. */
  async strangersPage(url) {
    return openPage(await this.#context.browser().newContext(), url)
  }

  async setOffline(isOffline) {
    await this.#context.setOffline(isOffline)
  }

  /** Returns a function that kills all processes that show pages with SIGKILL. */
  async readyToKillPages() {
    const pids = await this.#processes("renderer")
    return () => pids.forEach(kill)
  }

  /** Returns a function that kills the browser with SIGKILL, and with it all that it has started. */
  async readyToKillBrowser() {
    const pids = await this.#processes("browser")
    const context = this.#context
    const closed = once(context, "close")
    return () => {
      pids.forEach(kill)
      this.#context = undefined
      return within(10_000, "the browser's end", closed)
    }
  }

  /** The same profile with another browser, of one that does not do what it is told. */
  async renew() {
    const kill = await this.readyToKillBrowser()
    await kill()
    await this.open()
  }

  async close() {
    await this.#context?.close()
    this.#context = undefined
  }

  async #processes(type) {
    const session = await this.#context.browser().newBrowserCDPSession()
    const { processInfo } = await session.send("SystemInfo.getProcessInfo")
    await session.detach()
    return processInfo.filter(process => process.type === type).map(({ id }) => id)
  }
}

async function openPage(context, url) {
  const page = await new AppPage(await context.newPage()).listen()
  await page.goTo(url)
  return page.opened()
}

function kill(pid) {
  try {
    process.kill(pid, "SIGKILL")
  } catch (error) {
    if (error.code !== "ESRCH") throw error
  }
}
