import type { RejectedChange } from "../core/errors.js"

/** A text frame from the server. */
export interface TextFromServer {
  readonly durable?: string[]
  readonly missing?: string[]
  readonly query?: number
  readonly rejected?: RejectedChange[]
  readonly deleted?: boolean
}

interface Question {
  readonly hash: string
  resolve(isDurable: boolean): void
  reject(error: Error): void
}

/** Questions to the server whether it has a change, and its answers. */
export class Questions {
  readonly #send: (text: string) => boolean
  readonly #open = new Map<number, Question>()
  #queries = 0

  constructor(send: (text: string) => boolean) {
    this.#send = send
  }

  /** Whether the server has this change. */
  ask(hash: string): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const query = ++this.#queries
      if (this.#send(JSON.stringify({ have: [hash], query }))) this.#open.set(query, { hash, resolve, reject })
      else reject(ended())
    })
  }

  /** A question for a sign of life, about what is owed. */
  ping(owed: readonly string[]): boolean {
    return this.#send(JSON.stringify({ have: owed, query: ++this.#queries }))
  }

  /** The server has answered. */
  answer({ query, durable = [] }: TextFromServer): void {
    const question = query === undefined ? undefined : this.#open.get(query)
    if (query === undefined || !question) return
    this.#open.delete(query)
    question.resolve(durable.includes(question.hash))
  }

  /** The connection has ended: there will be no answers. */
  forget(): void {
    for (const { reject } of this.#open.values()) reject(ended())
    this.#open.clear()
  }
}

function ended(): Error {
  return new Error("the connection ended before the answer; ask again when it is back")
}
