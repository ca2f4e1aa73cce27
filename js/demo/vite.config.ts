import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { defineConfig, type Plugin } from "vite"

const COMPRESSED = /\.(js|css|html|wasm)$/

/** Puts a compressed copy beside each file, which the server sends to browsers that take it. */
function compressedCopies(): Plugin {
  return {
    name: "compressed-copies",
    apply: "build",
    writeBundle({ dir = "dist" }) {
      for (const entry of readdirSync(dir, { recursive: true, withFileTypes: true })) {
        if (!entry.isFile() || !COMPRESSED.test(entry.name)) continue
        const path = join(entry.parentPath, entry.name)
        writeFileSync(`${path}.gz`, gzipSync(readFileSync(path), { level: 9 }))
      }
    },
  }
}

export default defineConfig({
  // Relative, so that the pages work below any path.
  base: "./",
  resolve: {
    // ../client has its own copies beside it for its tests; a page must have each of them once.
    dedupe: ["@automerge/automerge", "@automerge/automerge-repo", "react", "react-dom"],
  },
  build: {
    target: "es2022",
    // One large chunk is what there is: editor, React and Automerge are all needed before anything can be shown.
    chunkSizeWarningLimit: 800,
    rollupOptions: { input: ["index.html", "closed.html"] },
  },
  plugins: [compressedCopies()],
})
