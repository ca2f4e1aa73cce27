import { init } from "@automerge/prosemirror"
import { baseKeymap, chainCommands, exitCode, setBlockType, toggleMark } from "prosemirror-commands"
import { history, redo, undo } from "prosemirror-history"
import { keymap } from "prosemirror-keymap"
import { liftListItem, sinkListItem, splitListItem, wrapInList } from "prosemirror-schema-list"
import { EditorState, Plugin, TextSelection, type Command } from "prosemirror-state"
import type { Schema } from "prosemirror-model"
import type { EditorView } from "prosemirror-view"
import type { PageHandle } from "./page-doc.js"
import { remoteCursors } from "./remote-cursors.js"

/** A button of the toolbar. */
export interface Format {
  readonly label: string
  readonly sign: string
  readonly key: string
  isOn(state: EditorState): boolean
  readonly command: Command
}

/** The editor's state, bound to the text of the page. */
export function editorState(handle: PageHandle): EditorState {
  const { schema, pmDoc, plugin } = init(handle as never, ["text"])
  const keys = Object.fromEntries(formats(schema).map(({ key, command }) => [key, command]))
  const item = schema.nodes.list_item!
  return EditorState.create({
    schema,
    doc: pmDoc,
    plugins: [
      history(),
      // Tab is left alone: it is how people without a mouse leave the text.
      keymap({
        ...keys,
        "Mod-z": undo,
        "Mod-y": redo,
        "Shift-Mod-z": redo,
        "Mod-]": sinkListItem(item),
        "Mod-[": liftListItem(item),
        "Shift-Enter": exitCode,
        Enter: splitListItem(item),
      }),
      keymap(baseKeymap),
      placeholder("Write something. Everybody with the link can."),
      remoteCursors(),
      plugin,
    ],
  })
}

/** What the toolbar offers. */
export function formats(schema: Schema): Format[] {
  const { heading, paragraph, bullet_list, list_item } = schema.nodes
  const { strong, em } = schema.marks
  const isHeading = ({ selection }: EditorState) => selection.$head.parent.type === heading
  const isList = ({ selection }: EditorState) => selection.$head.node(-1)?.type === list_item
  const hasMark = (name: string) => (state: EditorState) => {
    const { from, to, empty, $from } = state.selection
    const mark = state.schema.marks[name]!
    if (!empty) return state.doc.rangeHasMark(from, to, mark)
    return Boolean(mark.isInSet(state.storedMarks ?? $from.marks()))
  }
  return [
    { label: "Bold", sign: "B", key: "Mod-b", isOn: hasMark("strong"), command: toggleMark(strong!) },
    { label: "Italic", sign: "I", key: "Mod-i", isOn: hasMark("em"), command: toggleMark(em!) },
    {
      label: "Heading",
      sign: "H",
      key: "Mod-Alt-2",
      isOn: isHeading,
      command: (state, ...rest) =>
        isHeading(state) ? setBlockType(paragraph!)(state, ...rest) : setBlockType(heading!, { level: 2 })(state, ...rest),
    },
    {
      label: "List",
      sign: "•",
      key: "Mod-Shift-8",
      isOn: isList,
      command: chainCommands(liftListItem(list_item!), wrapInList(bullet_list!)),
    },
  ]
}

/** Types a line of its own at the end, in one change. */
export function typeLine(view: EditorView, words: string): void {
  const { doc, schema, tr } = view.state
  const last = doc.lastChild
  if (last && last.type === schema.nodes.paragraph && last.content.size === 0) tr.insertText(words, doc.content.size - 1)
  else tr.insert(doc.content.size, schema.nodes.paragraph!.create(null, schema.text(words)))
  tr.setSelection(TextSelection.atEnd(tr.doc))
  view.dispatch(tr)
}

function placeholder(words: string): Plugin {
  return new Plugin({
    props: {
      attributes: ({ doc }): Record<string, string> => {
        const isEmpty = doc.childCount === 1 && doc.firstChild?.isTextblock === true && doc.content.size === 2
        return isEmpty ? { class: "empty", "data-placeholder": words, "aria-placeholder": words } : {}
      },
    },
  })
}
