import { EditorView } from "prosemirror-view"
import { useEffect, useRef, useState, useSyncExternalStore } from "react"
import { editorState, formats, type Format } from "./editor-state.js"
import type { PageHandle } from "./page-doc.js"
import type { Presence } from "./presence.js"
import { showPeople } from "./remote-cursors.js"

export interface EditorProps {
  handle: PageHandle
  presence: Presence
  onView(view: EditorView | undefined): void
}

/** The text of the page, with its toolbar. */
export function Editor({ handle, presence, onView }: EditorProps) {
  const place = useRef<HTMLDivElement>(null)
  const [view, setView] = useState<EditorView>()
  const [, setState] = useState(view?.state)
  const people = useSyncExternalStore(presence.subscribe, presence.get)

  useEffect(() => {
    const made = makeView(place.current!, handle, presence, () => setState(made.state))
    setView(made)
    onView(made)
    return () => {
      onView(undefined)
      made.destroy()
    }
  }, [handle, presence, onView])

  useEffect(() => view?.dispatch(showPeople(view.state, people)), [view, people])

  return (
    <section className="text" aria-label="Text">
      <div className="toolbar" role="group" aria-label="Format of the text">
        {view && formats(view.state.schema).map(format => <FormatButton key={format.label} view={view} format={format} />)}
      </div>
      <div ref={place} />
    </section>
  )
}

function FormatButton({ view, format }: { view: EditorView; format: Format }) {
  const { label, sign, command, isOn } = format
  const apply = () => {
    command(view.state, view.dispatch, view)
    view.focus()
  }
  return (
    <button
      type="button"
      className={`format format-${label.toLowerCase()}`}
      aria-label={label}
      aria-pressed={isOn(view.state)}
      title={label}
      // The text keeps its selection.
      onMouseDown={event => event.preventDefault()}
      onClick={apply}
    >
      {sign}
    </button>
  )
}

function makeView(place: HTMLElement, handle: PageHandle, presence: Presence, onState: () => void): EditorView {
  const tellPlace = (view: EditorView) => {
    const { anchor, head } = view.state.selection
    presence.move(view.hasFocus() ? { anchor, head } : undefined)
  }
  const view: EditorView = new EditorView(place, {
    state: editorState(handle),
    attributes: { role: "textbox", "aria-multiline": "true", "aria-label": "Text of the page", spellcheck: "true" },
    dispatchTransaction(transaction) {
      view.updateState(view.state.apply(transaction))
      if (transaction.docChanged || transaction.selectionSet) tellPlace(view)
      onState()
    },
    handleDOMEvents: {
      focus: view => void setTimeout(() => tellPlace(view)),
      blur: view => void setTimeout(() => tellPlace(view)),
    },
  })
  return view
}
