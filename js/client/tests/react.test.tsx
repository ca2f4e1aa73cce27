// @vitest-environment happy-dom
import { act } from "react"
import { createRoot, hydrateRoot } from "react-dom/client"
import { renderToString } from "react-dom/server"
import { afterEach, beforeEach, expect, it, vi } from "vitest"
import { SaveStatus, SaveStatusProvider, useSaveStatus } from "../src/react/index.js"
import { Listeners } from "../src/core/listeners.js"
import { statusOf, type SaveState, type SaveStatus as Status, type SaveStatusSource } from "../src/core/save-status.js"

/** A source that says what the test wants. */
class FakeSource implements SaveStatusSource {
  readonly #listeners = new Listeners()
  #status: Status
  asked: Array<string | undefined> = []

  constructor(state: SaveState) {
    this.#status = make(state, 0)
  }

  become(state: SaveState, unsavedChanges = 0): void {
    this.#status = make(state, unsavedChanges)
    act(() => this.#listeners.notify())
  }

  saveStatus(documentId?: string): Status {
    this.asked.push(documentId)
    return this.#status
  }

  onSaveStatus(listener: () => void): () => void {
    return this.#listeners.add(listener)
  }
}

function make(state: SaveState, unsavedChanges: number): Status {
  const facts = {
    unsavedChanges,
    unsavedSince: undefined,
    isSaved: state === "saved",
    isRejected: state === "rejected",
    isStored: state === "savedOnDevice",
  }
  return statusOf(facts, state === "saving", () => 0)
}

let root: ReturnType<typeof createRoot>
let element: HTMLElement
beforeEach(() => {
  ;(globalThis as any).IS_REACT_ACT_ENVIRONMENT = true
  vi.useFakeTimers()
  element = document.createElement("div")
  root = createRoot(element)
})
afterEach(() => {
  act(() => root.unmount())
  vi.useRealTimers()
})

it("the chip says what is so, and how many changes wait", () => {
  const source = new FakeSource("saved")
  act(() => root.render(<SaveStatusProvider source={source}><SaveStatus className="chip" /></SaveStatusProvider>))
  expect(element.innerHTML).toBe('<span class="chip" role="status" data-state="saved">Saved</span>')
  source.become("saving", 1)
  expect(element.textContent).toBe("Saving…")
  source.become("savedOnDevice", 3)
  expect(element.textContent).toBe("Saved on this device only (3)")
  source.become("notSaved", 4)
  expect(element.textContent).toBe("Not saved (4)")
  expect(element.firstElementChild!.getAttribute("role")).toBe("alert")
  source.become("rejected", 1)
  expect(element.textContent).toBe("Not accepted by the server (1)")
})

it("the chip does not flicker while somebody types, and never says saved too early", () => {
  const source = new FakeSource("saved")
  act(() => root.render(<SaveStatusProvider source={source}><SaveStatus /></SaveStatusProvider>))
  for (let n = 0; n < 5; n++) {
    source.become("saving", 1)
    expect(element.textContent).toBe("Saving…")
    source.become("saved")
    expect(element.textContent).toBe("Saving…")
    act(() => vi.advanceTimersByTime(200))
  }
  act(() => vi.advanceTimersByTime(700))
  expect(element.textContent).toBe("Saved")
})

it("good news waits by the clock of the source, if it has one", () => {
  const due: Array<() => void> = []
  const timers = { setTimeout: (callback: () => void) => due.push(callback), clearTimeout: () => {} }
  const source = Object.assign(new FakeSource("saving"), { timers })
  act(() => root.render(<SaveStatusProvider source={source}><SaveStatus /></SaveStatusProvider>))
  source.become("saved")
  act(() => vi.advanceTimersByTime(10_000))
  expect(element.textContent).toBe("Saving…")
  act(() => due.forEach(callback => callback()))
  expect(element.textContent).toBe("Saved")
})

it("the hook asks for its document, and shows every change at once unless told to be smooth", () => {
  const source = new FakeSource("saving")
  const Show = () => useSaveStatus({ documentId: "doc" }).state
  act(() => root.render(<SaveStatusProvider source={source}><Show /></SaveStatusProvider>))
  source.become("saved")
  expect(element.textContent).toBe("saved")
  expect(new Set(source.asked)).toEqual(new Set(["doc"]))
})

it("other words can be given, and it renders on a server", () => {
  const words = { saving: "Wird gespeichert" }
  const html = renderToString(<SaveStatusProvider source={new FakeSource("saved")}><SaveStatus words={words} /></SaveStatusProvider>)
  expect(html).toContain("Wird gespeichert")
})

it("a page that a server rendered is taken over as it is, whatever the status is by then", () => {
  const page = (source: SaveStatusSource) => <SaveStatusProvider source={source}><SaveStatus smooth={false} /></SaveStatusProvider>
  const errors: unknown[] = []
  const source = new FakeSource("savedOnDevice")
  const hydrated = document.createElement("div")
  hydrated.innerHTML = renderToString(page(new FakeSource("saved")))
  const first = hydrated.firstElementChild
  act(() => void (root = hydrateRoot(hydrated, page(source), { onRecoverableError: error => errors.push(error) })))
  expect(errors).toEqual([])
  expect(hydrated.firstElementChild).toBe(first)
  expect(hydrated.textContent).toBe("Saved on this device only")
})

it("without a provider the error says what to do", () => {
  expect(() => renderToString(<SaveStatus />)).toThrow("SaveStatusProvider")
})
