import * as A from "@automerge/automerge/slim"
import { useRef, type FormEvent } from "react"
import type { PageHandle, Todo } from "./page-doc.js"
import { SharedInput } from "./shared-input.js"

/** Things to do, below the text. */
export function TodoList({ handle, todos }: { handle: PageHandle; todos: readonly Todo[] }) {
  const fresh = useRef<HTMLInputElement>(null)
  const add = (event: FormEvent) => {
    event.preventDefault()
    const text = fresh.current!.value.trim()
    if (!text) return
    const id = crypto.getRandomValues(new Uint32Array(2)).join("-")
    handle.change(doc => void doc.todos.push({ id, text, done: false }))
    fresh.current!.value = ""
  }
  const left = todos.filter(({ done }) => !done).length
  return (
    <section className="todos" aria-labelledby="todos-title">
      <h2 id="todos-title">
        To do {todos.length > 0 && <span className="quiet count">{left === 0 ? "all done" : `${left} of ${todos.length} left`}</span>}
      </h2>
      <ul>
        {todos.map(todo => (
          <TodoItem key={todo.id} handle={handle} todo={todo} />
        ))}
      </ul>
      <form onSubmit={add} className="add">
        <input ref={fresh} type="text" aria-label="New thing to do" placeholder="Add something to do" enterKeyHint="done" />
        <button type="submit" className="button small">
          Add
        </button>
      </form>
    </section>
  )
}

function TodoItem({ handle, todo }: { handle: PageHandle; todo: Todo }) {
  const { id, text, done } = todo
  // By id, as others may add and remove items meanwhile.
  const change = (edit: (todos: Todo[], at: number) => void) =>
    handle.change(doc => {
      const at = doc.todos.findIndex(one => one.id === id)
      if (at >= 0) edit(doc.todos, at)
    })
  const write = (words: string) =>
    handle.change(doc => {
      const at = doc.todos.findIndex(one => one.id === id)
      if (at >= 0) A.updateText(doc, ["todos", at, "text"], words)
    })
  const name = text || "an empty line"
  return (
    <li className={done ? "done" : undefined}>
      <input
        type="checkbox"
        checked={done}
        aria-label={`Done: ${name}`}
        onChange={({ target }) => change((todos, at) => (todos[at]!.done = target.checked))}
      />
      <SharedInput text={text} onText={write} aria-label="Thing to do" />
      <button type="button" className="remove" aria-label={`Remove: ${name}`} onClick={() => change((todos, at) => todos.splice(at, 1))}>
        ×
      </button>
    </li>
  )
}
