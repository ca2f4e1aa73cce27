import { expect, it } from "vitest"
import { changesUrl, documentUrl } from "../src/core/http.js"

it.each([
  ["ws://server.test", undefined, "http://server.test/v1/docs/a%20b/changes"],
  ["wss://server.test/", "t", "https://server.test/v1/docs/a%20b/changes?token=t"],
  ["wss://server.test/sync", undefined, "https://server.test/sync/v1/docs/a%20b/changes"],
  ["wss://server.test/sync/?key=1&token=old", "new", "https://server.test/sync/v1/docs/a%20b/changes?key=1&token=new"],
  ["wss://server.test/sync?key=1#here", undefined, "https://server.test/sync/v1/docs/a%20b/changes?key=1"],
  ["wss://server.test/v1/sync?key=1", undefined, "https://server.test/v1/docs/a%20b/changes?key=1"],
  ["wss://server.test/app/v1/sync/", undefined, "https://server.test/app/v1/docs/a%20b/changes"],
])("changes for %s with token %s are posted to %s", (url, token, expected) => {
  expect(changesUrl(url, "a b", token)).toBe(expected)
})

it("a plain document is synced below the server's url, too", () => {
  expect(documentUrl("wss://server.test/sync/?key=1", "abc", "sync").href).toBe("wss://server.test/sync/v1/docs/abc/sync?key=1")
})
