// The built server with the built pages, and Chromium in front of it.

import { spawn } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { chromium } from "playwright-core"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const pages = fileURLToPath(new URL("../dist", import.meta.url))
const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js")
const shots = process.env.HIGHWATER_SHOTS

const DESKTOP = { width: 1280, height: 860 }
const PHONE = { width: 390, height: 844 }
const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

/** How long anything may take. It ends a hang, and says nothing about speed. */
export const WAIT_MS = 30_000

function program() {
  const candidates = process.env.HIGHWATER_BIN ? [process.env.HIGHWATER_BIN] : ["release", "debug"].map(kind => `${root}target/${kind}/highwater`)
  const found = candidates.find(existsSync)
  if (!found) throw new Error(`no highwater program at ${candidates.join(" or ")}; run: cargo build`)
  return found
}

/** A port that stays the same when the server comes back. */
async function freePort() {
  const probe = createServer()
  await new Promise(resolve => probe.listen(0, "127.0.0.1", resolve))
  const { port } = probe.address()
  await new Promise(resolve => probe.close(resolve))
  return port
}

/** Starts the server. `extra` is added to its command line. */
export async function startServer(extra = ["--demo"]) {
  if (!existsSync(pages)) throw new Error("no pages in js/demo/dist; run: npm run build")
  const dataDir = mkdtempSync(join(tmpdir(), "highwater-demo-"))
  const port = await freePort()
  const args = ["serve", "--listen", `127.0.0.1:${port}`, "--data-dir", dataDir, "--pages-dir", pages, ...extra]
  const child = spawn(program(), args, { stdio: ["ignore", "pipe", "pipe"] })
  let log = ""
  child.stderr.on("data", data => (log += data))
  await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve)
    child.once("error", reject)
    child.once("exit", code => reject(new Error(`the server ended with ${code}:\n${log}`)))
  })
  const stop = async () => {
    const ended = new Promise(resolve => child.once("exit", resolve))
    child.kill("SIGKILL")
    await ended
    rmSync(dataDir, { recursive: true, force: true })
  }
  return { url: `http://127.0.0.1:${port}/`, port, stop }
}

/** Starts Chromium. */
export function startBrowser() {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium"
  // Its own sandbox does not work for root, as which containers run.
  return chromium.launch({ executablePath, chromiumSandbox: false, args: FLAGS })
}

/** A tab with its own storage. `errors` collects what goes wrong in it. */
export async function newDevice(browser, options = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options })
  context.setDefaultTimeout(WAIT_MS)
  return context
}

/** Opens an address and waits for the page. */
export async function open(context, url) {
  const page = await context.newPage()
  page.errors = []
  page.on("pageerror", error => page.errors.push(error))
  await page.goto(url)
  await page.waitForSelector(".ProseMirror")
  return page
}

/** Types at the end of the text. */
export async function write(page, words) {
  await page.locator(".ProseMirror").focus()
  await page.keyboard.press("Control+End")
  await page.keyboard.type(words)
}

/** Waits until the chip has this state. */
export async function chip(page, state) {
  await page.waitForSelector(`.chip[data-state="${state}"]`)
  return page.locator(".chip").innerText()
}

export function pull(page, name) {
  return page.getByRole("button", { name, exact: true }).click()
}

/** Waits until the text has these words. */
export function hasText(page, words) {
  return page.waitForFunction(words => document.querySelector(".ProseMirror")?.textContent.includes(words), words)
}

/** What axe finds that is serious, as lines to read. */
export async function seriousFindings(page) {
  await page.addScriptTag({ path: axe })
  // Colours on their way from one theme to the other are nobody's to read.
  await page.evaluate(() => Promise.all(document.getAnimations().map(animation => animation.finished.catch(() => {}))))
  const { violations } = await page.evaluate(() => globalThis.axe.run(document))
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(" ")}`)
}

/** Takes pictures for people to look at, if a folder for them is named: desktop and phone, light and dark. */
export async function picture(page, name) {
  if (!shots) return
  mkdirSync(shots, { recursive: true })
  await page.bringToFront()
  for (const [device, viewport] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    await page.setViewportSize(viewport)
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" })
      await page.screenshot({ path: join(shots, `${name}-${device}-${colorScheme}.png`) })
    }
  }
  await page.setViewportSize(DESKTOP)
  await page.emulateMedia({ colorScheme: "light" })
}
