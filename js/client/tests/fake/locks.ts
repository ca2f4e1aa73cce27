import type { LocksLike } from "../../src/core/environment.js"

/** `navigator.locks` for several tabs; `die` frees a tab's locks as the browser does. */
export class FakeLocks {
  readonly #held: Array<{ name: string; tab: object }> = []
  readonly #waiting: Array<{ name: string; tab: object; start: () => void }> = []

  forTab(): LocksLike & { die(): void } {
    const tab = {}
    return {
      request: (name, { signal }, held) =>
        new Promise<void>((resolve, reject) => {
          signal?.addEventListener("abort", () => reject(signal.reason))
          const start = () => {
            this.#held.push({ name, tab })
            void held().then(() => {
              this.#free(name)
              resolve()
            })
          }
          if (this.#held.some(one => one.name === name)) this.#waiting.push({ name, tab, start })
          else start()
        }),
      query: async () => ({ held: this.#held.map(({ name }) => ({ name })) }),
      die: () => {
        const names = this.#held.filter(one => one.tab === tab).map(({ name }) => name)
        this.#waiting.splice(0, Infinity, ...this.#waiting.filter(one => one.tab !== tab))
        for (const name of names) this.#free(name)
      },
    }
  }

  #free(name: string): void {
    this.#held.splice(this.#held.findIndex(one => one.name === name), 1)
    const next = this.#waiting.findIndex(one => one.name === name)
    if (next >= 0) this.#waiting.splice(next, 1)[0]!.start()
  }
}
