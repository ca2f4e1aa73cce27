import { defineConfig } from "vitest/config"

// Why not the others with our server: see tests/real/acceptance.test.ts.
const APPLICABLE =
  /with the stock server adapter|through the server\) (can sync [23] repos|can broadcast a message|should support reconnecting)/

// The stock adapter closes sockets that are not open yet, and hears no errors of them.
const THROWN_BY_THE_STOCK_ADAPTER = /^WebSocket was closed before the connection was established/

export default defineConfig({
  test: {
    onUnhandledError: error => !THROWN_BY_THE_STOCK_ADAPTER.test(error.message),
    projects: [
      { test: { name: "unit", include: ["tests/*.test.{ts,tsx}"], testTimeout: 60_000 } },
      {
        test: {
          name: "real",
          include: ["tests/real/*.test.ts"],
          exclude: ["tests/real/acceptance.test.ts"],
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: "acceptance",
          include: ["tests/real/acceptance.test.ts"],
          fileParallelism: false,
          testTimeout: 15_000,
          hookTimeout: 30_000,
          testNamePattern: APPLICABLE,
          // They pause for fixed times where they could wait for events; a busy machine gets a second go.
          retry: 2,
        },
      },
    ],
  },
})
