import { afterEach, expect, it, vi } from "vitest"
import { Listeners } from "../src/core/listeners.js"

afterEach(() => vi.restoreAllMocks())

it("a listener that throws is reported, and keeps nobody else from hearing", () => {
  const report = vi.spyOn(console, "error").mockImplementation(() => {})
  const listeners = new Listeners<[number]>()
  const heard: number[] = []
  const error = new Error("a mistake in the application")
  listeners.add(() => {
    throw error
  })
  listeners.add(n => heard.push(n))
  listeners.notify(1)
  expect(heard).toEqual([1])
  expect(report).toHaveBeenCalledWith(expect.any(String), error)
})
