import wasmUrl from "@automerge/automerge/automerge.wasm?url"

// The page says "Opening…" already. Both large parts are fetched at the same time.
const wasm = fetch(wasmUrl)
try {
  const { start } = await import("./start.js")
  await start(wasm, document.getElementById("app")!)
} catch (error) {
  console.error(error)
  const note = document.querySelector("#app [role=status]")
  if (note) note.textContent = "This page could not be started. Reload it to try again."
}
