import type { DocHandle } from "@automerge/automerge-repo/slim"

export interface Todo {
  id: string
  text: string
  done: boolean
}

/** What a page is as a document. */
export interface PageDoc {
  title: string
  text: string
  todos: Todo[]
}

export type PageHandle = DocHandle<PageDoc>

export function emptyPage(): PageDoc {
  return { title: "", text: "", todos: [] }
}

/** Whether the document is a page; an address can name any document. */
export function isPage(doc: unknown): doc is PageDoc {
  const { title, text, todos } = (doc ?? {}) as Partial<PageDoc>
  return typeof title === "string" && typeof text === "string" && Array.isArray(todos)
}

export function titleOf(doc: PageDoc): string {
  return doc.title.trim() || "Untitled page"
}
