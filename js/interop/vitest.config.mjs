import { defineConfig } from "vitest/config"

// automerge-repo clients throw when they send on a socket that is just closing, from a timer that no caller can
// guard, and when they close one that is not open yet, of which they hear no errors. It is theirs and
// harmless here: they sync again on the next connection.
const THROWN_BY_CLIENTS = /^Websocket( Socket)? not ready|^WebSocket was closed before the connection was established/

// Of the acceptance tests that automerge-repo ships, those that make sense with a server between the
// peers. The others expect the two adapters to be each other's peers.
const APPLIES_TO_A_HUB = /can sync [23] repos|can broadcast a message|should support reconnecting/

const common = {
  testTimeout: 150_000,
  hookTimeout: 60_000,
  onUnhandledError: error => !THROWN_BY_CLIENTS.test(error.message),
}

export default defineConfig({
  test: {
    ...common,
    fileParallelism: false,
    projects: [
      { test: { ...common, name: "scenarios", include: ["tests/*.test.mjs"] } },
      // Each command goes on where the one before it ended. The first one that fails is the one to look at.
      { test: { ...common, name: "docs", include: ["docs/*.test.mjs"], bail: 1 } },
      {
        test: {
          ...common,
          name: "acceptance",
          include: ["acceptance/*.test.mjs"],
          testTimeout: 15_000,
          testNamePattern: APPLIES_TO_A_HUB,
          // They pause for fixed times where they could wait for events; a busy machine gets a second go.
          retry: 2,
        },
      },
    ],
  },
})
