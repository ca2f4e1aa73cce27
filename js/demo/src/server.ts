/** Where the server is: for sync, and for plain requests. */
export interface Server {
  readonly webSocketUrl: string
  readonly httpUrl: string
}

/** The server that the page came from, unless the address names another one with `?server=ws://…`. */
export function serverOf(address: Location): Server {
  const named = new URLSearchParams(address.search).get("server")
  const webSocketUrl = new URL(named ?? `${address.origin.replace(/^http/, "ws")}/`).href
  return { webSocketUrl, httpUrl: webSocketUrl.replace(/^ws/, "http") }
}

/** Where the client keeps what the server does not have yet. */
export function outboxName({ webSocketUrl }: Server): string {
  return `highwater-demo outbox ${webSocketUrl}`
}

/** Whether the server was started so that pages may end it. */
export async function mayBeKilled({ httpUrl }: Server): Promise<boolean> {
  try {
    return (await fetch(new URL("demo", httpUrl))).ok
  } catch {
    return false
  }
}

/** Ends the server without a word. Somebody else has to start it again. */
export async function kill({ httpUrl }: Server): Promise<void> {
  // A killed server does not answer, and that is the answer.
  await fetch(new URL("demo/kill", httpUrl), { method: "POST" }).catch(() => undefined)
}
