// A rich text in ProseMirror, by Automerge's plugin.

import { basicSchemaAdapter, init } from "@automerge/prosemirror"
import { EditorState } from "prosemirror-state"
import { EditorView } from "prosemirror-view"
import { documentOf, ofTab } from "./repo.js"

const handle = await documentOf(ofTab(), { text: "" })
const { pmDoc: doc, plugin, schema } = init(handle, ["text"], { schemaAdapter: basicSchemaAdapter })
window.view = new EditorView(document.body, {
  state: EditorState.create({ schema, doc, plugins: [plugin] }),
  dispatchTransaction: transaction => view.updateState(view.state.apply(transaction)),
})

/** Makes what is selected strong. */
window.strong = () => {
  const { from, to } = view.state.selection
  view.dispatch(view.state.tr.addMark(from, to, schema.marks.strong.create()))
}
