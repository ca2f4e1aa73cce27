import { defineConfig } from "vitest/config"

// Why not the others with our server: see tests/real/acceptance.test.ts.
const APPLICABLE =
  /with the stock server adapter|through the server\) (can sync [23] repos|can broadcast a message|should support reconnecting)/

export default defineConfig({
  test: {
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
