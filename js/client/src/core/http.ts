import { joinChunks, type Change } from "./changes.js"
import type { Environment } from "./environment.js"
import { DELETED, type RejectedChange } from "./errors.js"
import { withToken } from "./token.js"

const GONE = 410

// The server takes 32 MiB at once. Smaller requests show progress on a slow path.
const REQUEST_BYTES_MAX = 4 * 1024 * 1024

/** What the server says about posted changes. */
export interface PostedChanges {
  /** Durable, with all their ancestors. */
  readonly durable: readonly string[]
  /** Refused for good. */
  readonly rejected: readonly RejectedChange[]
}

/** Where something of a document is: below the server's url, which may have a path and a query of its own, or be that of its sockets. */
export function documentUrl(serverUrl: string, documentId: string, what: "sync" | "changes"): URL {
  const url = new URL(serverUrl)
  url.pathname = `${url.pathname.replace(/(\/v1\/sync)?\/?$/, "")}/v1/docs/${encodeURIComponent(documentId)}/${what}`
  url.hash = ""
  return url
}

/** Where the changes of a document are posted: on the WebSocket's host, over HTTP. */
export function changesUrl(webSocketUrl: string, documentId: string, token: string | undefined): string {
  const url = documentUrl(webSocketUrl, documentId, "changes")
  url.protocol = url.protocol === "wss:" ? "https:" : "http:"
  return withToken(url.href, token)
}

/**
 * Posts changes. Posting twice does no harm. Undefined if the server did not answer, or not with success:
 * then nothing is known.
 */
export async function postChanges(
  fetch: NonNullable<Environment["fetch"]>,
  url: string,
  changes: readonly Change[],
  keepalive: boolean
): Promise<PostedChanges | undefined> {
  try {
    const response = await fetch(url, {
      method: "POST",
      body: joinChunks(changes.map(({ bytes }) => bytes)),
      // This type spares a browser the question whether it may post to another origin.
      headers: { "content-type": "text/plain" },
      keepalive,
    })
    // Deleted: no change will ever be part of the document again.
    if (response.status === GONE) return { durable: [], rejected: changes.map(({ hash }) => ({ hash, reason: DELETED })) }
    if (!response.ok) return undefined
    const { durable = [], rejected = [] } = (await response.json()) as Partial<PostedChanges>
    return { durable, rejected }
  } catch {
    return undefined
  }
}

/**
 * Posts changes, which are in causal order, in several requests if they are large, and tells what the server says of
 * each. Ends when one is not answered with success: what comes next builds on it.
 */
export async function* postInParts(
  fetch: NonNullable<Environment["fetch"]>,
  url: string,
  changes: readonly Change[],
  keepalive: boolean
): AsyncGenerator<PostedChanges, void> {
  for (const part of inParts(changes)) {
    const answer = await postChanges(fetch, url, part, keepalive)
    if (!answer) return
    yield answer
  }
}

function* inParts(changes: readonly Change[]): Generator<Change[]> {
  let part: Change[] = []
  let size = 0
  for (const change of changes) {
    size += change.bytes.length
    if (size > REQUEST_BYTES_MAX && part.length > 0) {
      yield part
      part = []
      size = change.bytes.length
    }
    part.push(change)
  }
  yield part
}
