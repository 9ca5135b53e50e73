// A text in CodeMirror, by automerge-codemirror.

import { automergeSyncPlugin } from "@automerge/automerge-codemirror"
import { EditorView, basicSetup } from "codemirror"
import { documentOf, ofTab } from "./repo.js"

const handle = await documentOf(ofTab(), { text: "" })
window.view = new EditorView({
  doc: handle.doc().text,
  extensions: [basicSetup, automergeSyncPlugin({ handle, path: ["text"] })],
  parent: document.body,
})
