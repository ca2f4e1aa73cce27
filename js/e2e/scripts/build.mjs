// Bundles the page twice, from the same sources but for the file that constructs the repo. The client comes
// straight from its sources.

import { cp, mkdir } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { build } from "esbuild"

const here = fileURLToPath(new URL("..", import.meta.url))
const client = fileURLToPath(new URL("../../client/src", import.meta.url))

const INSTALLED = /^(@automerge\/|react(-dom)?(\/|$))/

/** One copy of each package, whoever imports it: this folder's. The whole of automerge is one file without fetches. */
function resolver(construct) {
  return {
    name: "resolver",
    setup({ onResolve, resolve }) {
      onResolve({ filter: /^construct$/ }, () => ({ path: `${here}app/${construct}` }))
      onResolve({ filter: /^@highwater\/client$/ }, () => ({ path: `${client}/index.ts` }))
      onResolve({ filter: /^@highwater\/client\/react$/ }, () => ({ path: `${client}/react/index.ts` }))
      onResolve({ filter: /^@automerge\/automerge$/ }, () => ({
        path: `${here}node_modules/@automerge/automerge/dist/mjs/entrypoints/fullfat_base64.js`,
      }))
      onResolve({ filter: INSTALLED }, ({ path, kind, pluginData }) =>
        pluginData === "resolved" ? undefined : resolve(path, { kind, resolveDir: here, pluginData: "resolved" })
      )
    },
  }
}

for (const name of ["highwater", "stock"]) {
  await mkdir(`${here}dist/${name}`, { recursive: true })
  await cp(`${here}app/index.html`, `${here}dist/${name}/index.html`)
  await build({
    entryPoints: [`${here}app/main.tsx`],
    outfile: `${here}dist/${name}/app.js`,
    plugins: [resolver(`repo.${name}.ts`)],
    bundle: true,
    format: "esm",
    target: "es2022",
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"production"' },
    logLevel: "warning",
  })
}
