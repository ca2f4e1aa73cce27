import { Plugin, PluginKey, type EditorState } from "prosemirror-state"
import { Decoration, DecorationSet } from "prosemirror-view"
import type { Person, Place } from "./presence.js"

/** Somebody, and where their place has moved to since they told it. */
interface Shown {
  readonly person: Person
  readonly place: Place | undefined
}

const key = new PluginKey<readonly Shown[]>("remote-cursors")

/** Shows where the others are in the text. */
export function remoteCursors(): Plugin<readonly Shown[]> {
  return new Plugin<readonly Shown[]>({
    key,
    state: {
      init: () => [],
      apply(tr, shown) {
        const people = tr.getMeta(key) as readonly Person[] | undefined
        if (people) return people.map(person => shown.find(one => one.person === person) ?? { person, place: person.place })
        if (!tr.docChanged) return shown
        const moved = (at: number) => tr.mapping.map(at)
        return shown.map(({ person, place }) => ({
          person,
          place: place && { anchor: moved(place.anchor), head: moved(place.head) },
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
  const all = (key.getState(state) ?? []).flatMap(({ person, place }) => {
    if (!place) return []
    const { id, name, color } = person
    const [anchor, head] = [inside(place.anchor), inside(place.head)]
    // A new element, which shows the name again, when they have moved, and not when what is before them has.
    const key = `${id} ${person.place?.head}`
    const cursor = Decoration.widget(head, () => cursorElement(name, color), { key, side: 10 })
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
