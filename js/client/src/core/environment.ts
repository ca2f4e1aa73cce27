/** The part of a WebSocket that this package uses. Browsers', Node's, Deno's and `ws`'s have it. */
export interface WebSocketLike {
  binaryType: string
  readonly readyState: number
  readonly bufferedAmount?: number
  send(data: Uint8Array | string): void
  close(code?: number, reason?: string): void
  addEventListener(type: string, listener: (event: any) => void): void
  removeEventListener(type: string, listener: (event: any) => void): void
}

/** Makes a WebSocket. */
export type WebSocketConstructor = new (url: string, protocols?: string[]) => WebSocketLike

/** What listens to page and network events: `window` or `document`, or a stand-in. */
export interface EventSource {
  addEventListener(type: string, listener: (event: any) => void): void
  removeEventListener(type: string, listener: (event: any) => void): void
}

/** The part of `navigator.locks` that this package uses. */
export interface LocksLike {
  request(name: string, options: { signal?: AbortSignal }, held: () => Promise<void>): Promise<void>
  query(): Promise<{ held?: Array<{ name?: string }> }>
}

/** The part of `fetch` that this package uses. */
export type FetchLike = (url: string, init: FetchInit) => Promise<FetchResponse>

/** What is asked of {@link FetchLike}. */
export interface FetchInit {
  method: string
  body: Uint8Array | string
  headers: Record<string, string>
  keepalive?: boolean
}

/** What {@link FetchLike} answers. */
export interface FetchResponse {
  readonly ok: boolean
  readonly status: number
  json(): Promise<unknown>
}

/**
 * Everything outside that the package touches. The defaults are the platform's; a test or an unusual
 * host hands in its own.
 */
export interface Environment {
  /** Milliseconds since 1970. */
  now(): number
  /** A number from 0 up to, not including, 1. */
  random(): number
  /** Calls back once after so many milliseconds. */
  setTimeout(callback: () => void, ms: number): unknown
  /** Takes back what {@link setTimeout} promised. */
  clearTimeout(timer: unknown): void
  /** The WebSocket to connect with. */
  WebSocket(): WebSocketConstructor | Promise<WebSocketConstructor>
  /** For the last words of a closing tab. Without it nothing is posted. */
  fetch?: FetchLike | undefined
  /** Where `online`, `pagehide` and `beforeunload` come from. */
  window?: EventSource | undefined
  /** Where `visibilitychange` and `freeze` come from. */
  document?: (EventSource & { readonly visibilityState?: string }) | undefined
  /** Decides which of several tabs takes over what a closed tab left. */
  locks?: LocksLike | undefined
  /** Asks the browser not to delete what is stored on the device. */
  persistStorage?: (() => Promise<boolean>) | undefined
}

// Platforms keep a timer's time in 31 bits, and fire at once if there are more.
const TIMER_MS_MAX = 2 ** 31 - 1

/** The platform's environment, with these parts in place of its own. */
export function environmentOf(given: Partial<Environment> = {}): Environment {
  const environment = { ...platform(), ...given }
  return { ...environment, setTimeout: (callback, ms) => environment.setTimeout(callback, Math.min(ms, TIMER_MS_MAX)) }
}

/** The platform's own environment. */
function platform(): Environment {
  const global = globalThis as any
  const isPage = typeof global.window === "object" && typeof global.document === "object"
  const events = typeof global.addEventListener === "function" ? global : undefined
  const navigator = global.navigator
  return {
    now: () => Date.now(),
    random: () => Math.random(),
    setTimeout: (callback, ms) => setTimeout(callback, ms),
    clearTimeout: timer => clearTimeout(timer as any),
    WebSocket: platformWebSocket,
    fetch: typeof global.fetch === "function" ? (url, init) => global.fetch(url, init) : undefined,
    window: events,
    document: isPage ? global.document : undefined,
    locks: isPage ? navigator?.locks : undefined,
    persistStorage: navigator?.storage?.persist ? () => navigator.storage.persist() : undefined,
  }
}

async function platformWebSocket(): Promise<WebSocketConstructor> {
  const found = (globalThis as any).WebSocket
  if (found) return found
  // Node 20 has none. The name is a variable so that bundlers for browsers leave it alone.
  const name = "ws"
  try {
    const ws = await import(/* @vite-ignore */ /* webpackIgnore: true */ name)
    return ws.WebSocket
  } catch {
    throw new Error('this platform has no WebSocket: run "npm install ws", or use Node 22 or later')
  }
}
