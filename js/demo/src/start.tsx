import { initializeWasm } from "@automerge/automerge-repo/slim"
import { createRoot } from "react-dom/client"
import { App } from "./app.js"
import { serverOf } from "./server.js"
import { openSession } from "./session.js"

/** Starts the application in this place. */
export async function start(wasm: Promise<Response>, place: HTMLElement): Promise<void> {
  // It compiles a response while that still comes in; its type does not say so.
  await initializeWasm(wasm as unknown as Promise<Uint8Array>)
  createRoot(place).render(<App session={openSession(serverOf(location))} />)
}
