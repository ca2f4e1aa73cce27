import { Plugin, PluginKey, type EditorState } from "prosemirror-state"
import { Decoration, DecorationSet } from "prosemirror-view"
import type { Person } from "./presence.js"

const key = new PluginKey<readonly Person[]>("remote-cursors")

/** Shows where the others are in the text. */
export function remoteCursors(): Plugin<readonly Person[]> {
  return new Plugin<readonly Person[]>({
    key,
    state: {
      init: (): readonly Person[] => [],
      apply(tr, people: readonly Person[]) {
        const news = tr.getMeta(key) as readonly Person[] | undefined
        if (news) return news
        if (!tr.docChanged) return people
        // Until they say where they are now, they are where their place has moved to.
        const moved = (at: number) => tr.mapping.map(at)
        return people.map(person => ({
          ...person,
          place: person.place && { anchor: moved(person.place.anchor), head: moved(person.place.head) },
        }))
      },
    },
    props: { decorations },
  })
}

/** The transaction that shows these people. */
export function showPeople(state: EditorState, people: readonly Person[]) {
  return state.tr.setMeta(key, people).setMeta("addToHistory", false)
}

function decorations(state: EditorState): DecorationSet {
  const end = state.doc.content.size
  const inside = (at: number) => Math.max(0, Math.min(at, end))
  const all = (key.getState(state) ?? []).flatMap(({ id, name, color, place }) => {
    if (!place) return []
    const [anchor, head] = [inside(place.anchor), inside(place.head)]
    const cursor = Decoration.widget(head, () => cursorElement(name, color), { key: `${id} ${name}`, side: 10 })
    if (anchor === head) return [cursor]
    const range = { class: `remote-range color-${color}` }
    return [cursor, Decoration.inline(Math.min(anchor, head), Math.max(anchor, head), range)]
  })
  return DecorationSet.create(state.doc, all)
}

function cursorElement(name: string, color: number): HTMLElement {
  const cursor = document.createElement("span")
  cursor.className = `remote-cursor color-${color}`
  cursor.setAttribute("aria-hidden", "true")
  const label = document.createElement("span")
  label.className = "remote-name"
  label.textContent = name
  cursor.append(label)
  return cursor
}
