// Bundles each entry point as an application would, without its peer dependencies, and compares its size
// with the budget. A larger budget is a decision: change the number here, and say why in the commit.

import { gzipSync } from "node:zlib"
import { build } from "esbuild"

const BUDGET_BYTES = {
  "dist/index.js": 13_450,
  "dist/plain/index.js": 13_800,
  "dist/react/index.js": 1_000,
  "dist/node/index.js": 1_200,
}

const external = ["@automerge/automerge*", "@automerge/automerge-repo*", "react", "node:*"]

let isOver = false
for (const [entry, budget] of Object.entries(BUDGET_BYTES)) {
  const result = await build({
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: "es2022",
    external,
  })
  const size = gzipSync(result.outputFiles[0].contents).length
  const verdict = size > budget ? "OVER BUDGET" : "ok"
  isOver ||= size > budget
  console.log(`${entry.padEnd(24)} ${size} bytes gzipped, budget ${budget}: ${verdict}`)
}
process.exitCode = isOver ? 1 : 0
