/** Functions that want to hear of changes. `add` returns its own undo. */
export class Listeners<Arguments extends unknown[] = []> {
  readonly #all = new Set<(...args: Arguments) => void>()

  add(listener: (...args: Arguments) => void): () => void {
    this.#all.add(listener)
    return () => {
      this.#all.delete(listener)
    }
  }

  notify(...args: Arguments): void {
    for (const listener of [...this.#all]) {
      try {
        listener(...args)
      } catch (error) {
        // The application's mistake must not stop what called it here: a socket's event, a write to the outbox.
        console.error("highwater: a listener of the application threw:", error)
      }
    }
  }
}
