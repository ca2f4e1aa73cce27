import { inCausalOrder } from "../core/changes.js"
import { environmentOf, type Environment, type FetchLike } from "../core/environment.js"
import type { RejectedChange, UnsavedDocument } from "../core/errors.js"
import { changesUrl, postInParts } from "../core/http.js"
import type { OutboxChange, OutboxStore } from "../core/outbox.js"
import { resolveToken, type Token } from "../core/token.js"

/** Settings of {@link sendLeftovers}. */
export interface SendLeftoversOptions {
  /** Where documents kept what they owed. */
  outbox: OutboxStore
  /** Lets the client in, as for {@link openDocument}. */
  token?: Token
  /** Stand-ins for clock, `fetch` and the rest, for tests and unusual hosts. */
  environment?: Partial<Environment>
}

/**
 * Sends what earlier sessions and other tabs have left in an outbox, of all its documents, without opening them. To be
 * called when a page is opened, and again when the network is back. Resolves with what is still not on the server,
 * because it could not be reached or refused it: that is still in the outbox. Rejects if the outbox cannot be read or
 * written. What other tabs are about to send themselves may be sent twice, which does no harm.
 */
export async function sendLeftovers(url: string, options: SendLeftoversOptions): Promise<readonly UnsavedDocument[]> {
  const environment = environmentOf(options.environment)
  const { fetch } = environment
  if (!fetch) throw new Error("this platform has no fetch, which sendLeftovers needs: use Node 20 or later, or hand it in as environment.fetch")
  const { outbox } = options
  const { changes } = await outbox.load()
  if (changes.length === 0) return []
  const token = await resolveToken(options.token, false)
  const left: UnsavedDocument[] = []
  for (const [documentId, ofDocument] of byDocument(changes)) {
    const { durable, rejected } = await send(fetch, changesUrl(url, documentId, token), ofDocument)
    const remove = [...durable].map(hash => ({ documentId, hash }))
    if (remove.length > 0) await outbox.write({ put: [], remove, durableHeads: new Map() })
    const hashes = ofDocument.map(({ hash }) => hash).filter(hash => !durable.has(hash))
    if (hashes.length > 0) left.push({ documentId, hashes, rejected })
  }
  return left
}

interface Sent {
  readonly durable: ReadonlySet<string>
  readonly rejected: readonly RejectedChange[]
}

async function send(fetch: FetchLike, url: string, changes: readonly OutboxChange[]): Promise<Sent> {
  const durable = new Set<string>()
  const rejected: RejectedChange[] = []
  for await (const answer of postInParts(fetch, url, changes, false)) {
    for (const hash of answer.durable) durable.add(hash)
    rejected.push(...answer.rejected)
  }
  return { durable, rejected }
}

/** In causal order: that of writing is another one if several tabs wrote. */
function byDocument(changes: readonly OutboxChange[]): Map<string, OutboxChange[]> {
  const documents = new Map<string, OutboxChange[]>()
  for (const change of changes) {
    const { documentId } = change
    if (!documents.has(documentId)) documents.set(documentId, [])
    documents.get(documentId)!.push(change)
  }
  return new Map([...documents].map(([id, ofDocument]) => [id, inCausalOrder(ofDocument)]))
}
