// One page of the application, and what it has told: what was typed when, and what was shown as saved.

import { EventEmitter } from "node:events"
import { events, until, within } from "../../interop/lib/wait.mjs"

const OPEN_MS = 30_000
const KEY_MS = 20_000
const CLOSE_MS = 20_000

/** Once in some hundred rounds Chromium never says that it has taken a key, or closed a page, while the page is well. */
export class BrowserStalledError extends Error {}

/** Emits "report". */
export class AppPage extends EventEmitter {
  /** What was shown as saved: so many characters, and all below these heads. */
  saved = []
  edits = []
  statuses = []
  chips = []
  /** What was typed here, character by character: when the key was pressed, for the browser and for us. */
  typed = []
  url
  #page
  #session
  #opened = 0

  constructor(page) {
    super()
    this.#page = page
  }

  get page() {
    return this.#page
  }

  get session() {
    return this.#session
  }

  /** All that was typed here. */
  get text() {
    return this.typed.map(({ key }) => key).join("")
  }

  /** How many characters had been typed here when all was last shown as saved. */
  get savedCount() {
    return this.saved.at(-1)?.count ?? 0
  }

  /** The heads of every document that was shown as saved. */
  get savedHashes() {
    return this.saved.flatMap(({ heads }) => heads)
  }

  get status() {
    return this.statuses.at(-1)
  }

  async listen() {
    this.#session = await this.#page.context().newCDPSession(this.#page)
    this.#session.on("Runtime.bindingCalled", ({ name, payload }) => name === "report" && this.#hear(JSON.parse(payload)))
    await this.#session.send("Runtime.enable")
    await this.#session.send("Runtime.addBinding", { name: "report" })
    this.#page.on("pageerror", error => console.error(`error in the page: ${error.stack ?? error}`))
    return this
  }

  async goTo(url) {
    await this.#page.goto(url, { waitUntil: "commit" })
  }

  /** Resolves when the application is there, for the first time or after a reload. */
  async opened(times = 1) {
    await this.until("the page to open", () => this.#opened >= times, OPEN_MS)
    return this
  }

  /** Types with real keys, one after the other, with a pause of `pause()` milliseconds after each. */
  async type(text, pause = () => 0) {
    for (const key of text) {
      this.typed.push({ key, at: Date.now() })
      await this.#press(key)
      const ms = pause()
      if (ms > 0) await new Promise(resolve => setTimeout(resolve, ms))
    }
  }

  async #press(key) {
    await inTime(KEY_MS, "the browser to take a key", this.#page.keyboard.press(key))
  }

  /** Closes the page without asking it. */
  async close() {
    await inTime(CLOSE_MS, "the browser to close a page", this.#page.close({ runBeforeUnload: false }))
  }

  /** Puts in a text at once, as pasting does. */
  async paste(text) {
    await this.#page.keyboard.insertText(text)
  }

  /** When the n-th character was typed, as the page says, or else as we do. */
  typedAt(index) {
    return this.edits.find(({ count }) => count === index + 1)?.at ?? this.typed[index].at
  }

  /** Resolves when all that the page has is shown as saved. */
  async isSaved() {
    const isSaved = () => this.edits.length >= this.typed.length && this.status?.state === "saved"
    await this.until("everything to be saved", isSaved)
  }

  /** Resolves when the text field has this text. */
  async shows(text) {
    await this.#page.waitForFunction(wanted => document.querySelector("textarea").value === wanted, text)
  }

  async until(what, holds, ms) {
    const explain = () => `status ${JSON.stringify(this.status)}, ${this.edits.length} of ${this.typed.length} edits`
    await until(what, events([this], "report"), holds, { ms, explain })
  }

  #hear(report) {
    if (report.type === "open") {
      this.#opened += 1
      if (report.url) this.url = report.url
    }
    if (report.type === "edit") this.edits.push(report)
    if (report.type === "chip") this.chips.push(report)
    if (report.type === "status") {
      this.statuses.push(report)
      const isSaved = report.state === "saved" && report.heads.length > 0
      if (isSaved) this.saved.push({ count: this.edits.length, heads: report.heads })
    }
    this.emit("report", report)
  }
}

async function inTime(ms, what, done) {
  try {
    return await within(ms, what, done)
  } catch (error) {
    throw new BrowserStalledError(error.message)
  }
}
