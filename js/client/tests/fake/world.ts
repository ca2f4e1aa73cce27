import * as A from "@automerge/automerge"
import { Repo, type DocHandle, type RepoConfig } from "@automerge/automerge-repo"
import { HighwaterClientAdapter, type HighwaterClientAdapterOptions } from "../../src/index.js"
import type { Environment } from "../../src/core/environment.js"
import type { DurableHeads, OutboxBatch, OutboxChange, OutboxContents, OutboxStore } from "../../src/core/outbox.js"
import { FakeServer } from "./server.js"
import type { Line } from "./socket.js"

/** A document's id for tests without a repo. */
export const DOCUMENT_ID = "4NMNnkMhL8jXrdJ9jamS58PAVdXu"

/** An environment on the fake clock. */
export function environment(line: Line, more: Partial<Environment> = {}): Environment {
  return {
    now: () => Date.now(),
    random: Math.random,
    setTimeout: (callback, ms) => setTimeout(callback, ms),
    clearTimeout: timer => clearTimeout(timer as any),
    WebSocket: () => line.WebSocket,
    fetch: undefined,
    window: undefined,
    document: undefined,
    locks: undefined,
    persistStorage: undefined,
    ...more,
  }
}

/** An outbox in memory, which can be slow or broken. */
export class MemoryStore implements OutboxStore {
  readonly changes = new Map<string, OutboxChange>()
  readonly durableHeads = new Map<string, DurableHeads>()
  serverId: string | undefined
  writeMs = 0
  isBroken = false
  /** How often something was written. */
  writes = 0
  /** The hashes of all that was ever written, in order. */
  readonly everPut = new Set<string>()

  async load(): Promise<OutboxContents> {
    return { changes: [...this.changes.values()], durableHeads: new Map(this.durableHeads), serverId: this.serverId }
  }

  async write({ put, remove, durableHeads, serverId }: OutboxBatch): Promise<void> {
    if (this.writeMs > 0) await new Promise<void>(resolve => setTimeout(resolve, this.writeMs))
    if (this.isBroken) throw new Error("disk full")
    this.writes += 1
    for (const change of put) this.changes.set(`${change.documentId} ${change.hash}`, change)
    for (const { hash } of put) this.everPut.add(hash)
    for (const { documentId, hash } of remove) this.changes.delete(`${documentId} ${hash}`)
    for (const [id, heads] of durableHeads) {
      if (heads) this.durableHeads.set(id, heads)
      else this.durableHeads.delete(id)
    }
    this.serverId = serverId ?? this.serverId
  }

  async sync(): Promise<void> {
    if (this.isBroken) throw new Error("disk full")
  }

  /** The hashes of one document that are owed. */
  hashes(documentId: string): string[] {
    return [...this.changes.values()].filter(change => change.documentId === documentId).map(({ hash }) => hash)
  }
}

/** A storage adapter of automerge-repo in memory. */
export class MemoryStorage {
  readonly #entries = new Map<string, { key: string[]; data: Uint8Array }>()
  async load(key: string[]) {
    return this.#entries.get(key.join("/"))?.data
  }
  async save(key: string[], data: Uint8Array) {
    this.#entries.set(key.join("/"), { key, data })
  }
  async remove(key: string[]) {
    this.#entries.delete(key.join("/"))
  }
  async loadRange(prefix: string[]) {
    return [...this.#entries.values()].filter(({ key }) => prefix.every((part, at) => key[at] === part))
  }
  async removeRange(prefix: string[]) {
    for (const { key } of await this.loadRange(prefix)) await this.remove(key)
  }
}

/** A repo with its adapter and its line to the server. */
export interface Participant {
  line: Line
  adapter: HighwaterClientAdapter
  repo: Repo
}

/** Makes one. */
export function participant(
  server: FakeServer,
  {
    repo: repoConfig = {},
    more = {},
    line = server.line(),
    ...options
  }: HighwaterClientAdapterOptions & { repo?: RepoConfig; more?: Partial<Environment>; line?: Line } = {}
): Participant {
  const adapter = new HighwaterClientAdapter("ws://server.test/", {
    outbox: false,
    environment: environment(line, more),
    ...options,
  })
  const repo = new Repo({ network: [adapter], ...repoConfig })
  adapter.attach(repo)
  return { line, adapter, repo }
}

/** All hashes of the document behind a handle. */
export function hashesOf(handle: DocHandle<any>): string[] {
  return A.getChangesMetaSince(handle.doc(), []).map(({ hash }) => hash)
}

/** The hashes below these, with them. */
export function ancestors(doc: A.Doc<unknown>, heads: Iterable<string>): Set<string> {
  const deps = new Map(A.getChangesMetaSince(doc, []).map(({ hash, deps }) => [hash, deps]))
  const found = new Set<string>()
  const stack = [...heads]
  for (let hash = stack.pop(); hash !== undefined; hash = stack.pop()) {
    if (found.has(hash)) continue
    found.add(hash)
    stack.push(...(deps.get(hash) ?? []))
  }
  return found
}
