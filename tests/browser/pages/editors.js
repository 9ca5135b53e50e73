// A page with an editor on the text of a document, and the package as `reconverge`.

import { EditorView } from "@codemirror/view"
import * as reconverge from "../../../wasm/dist/browser.js"
import { reconvergeText } from "../../../wasm/dist/codemirror.js"

window.reconverge = reconverge

/** Opens the document, or makes one with this text; gives its url. */
window.start = async ({ relay, url, text, user }) => {
  window.repo = await reconverge.Repo.open({ relay })
  window.doc = url ? await repo.find(url) : await repo.create({ text, other: [] })
  window.presence = new reconverge.Presence(doc, { state: { user, selection: null } })
  window.view = new EditorView({
    parent: document.body,
    extensions: [reconvergeText(doc, ["text"], { presence })],
  })
  window.unlike = []
  doc.on("change", async () => {
    // The editor may be in the middle of telling the document; it is even with it right after.
    await Promise.resolve()
    await Promise.resolve()
    const [shown, is] = [view.state.doc.toString(), doc.doc().text]
    if (shown !== is && !view.composing) unlike.push([shown, is])
  })
  return doc.url
}

const PIECES = ["a", "bc ", "\n", "é", "👩‍👩‍👧", "\r\n", "x\ny", "", "", "\ud83d"]

/** Makes random edits, some of them of several places, some that halve a character. */
window.scribble = async (edits, seed) => {
  const random = below => {
    seed = (seed * 1664525 + 1013904223) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  for (let edit = 0; edit < edits; edit++) {
    const { length } = view.state.doc
    const changes = []
    let at = random(length + 1)
    for (let places = 1 + random(3); places > 0 && at <= length; places--) {
      const to = Math.min(length, at + random(5))
      changes.push({ from: at, to, insert: view.state.toText(PIECES[random(PIECES.length)]) })
      at = to + 1 + random(6)
    }
    view.dispatch({ changes })
    if (random(8) === 0) doc.change(draft => draft.other.push(edit))
    if (random(8) === 0) doc.change(draft => reconverge.splice(draft, ["text"], 0, 0, "!"))
    if (random(3) === 0) await new Promise(resolve => setTimeout(resolve, random(8)))
  }
}
