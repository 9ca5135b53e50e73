// Documents that grew the way people make them: many changes, one character each.

import * as Automerge from "@automerge/automerge"
import { turn } from "./wait.js"

const TURN_EVERY = 50

const letter = index => String.fromCharCode(97 + (index % 26))

/** Creates a document and types `count` characters into it, one change each, while it syncs. */
export async function typed(client, count) {
  const handle = client.create({ text: "" })
  for (let index = 0; index < count; index++) {
    handle.change(doc => Automerge.splice(doc, ["text"], index, 0, letter(index)))
    if (index % TURN_EVERY === 0) await turn()
  }
  return handle
}

/** A document of `count` changes that no client has seen yet. */
export function written(count, actor) {
  let doc = Automerge.init(actor ? { actor } : undefined)
  doc = Automerge.change(doc, { time: 0 }, draft => (draft.text = ""))
  for (let index = 1; index < count; index++) {
    doc = Automerge.change(doc, { time: 0 }, draft =>
      Automerge.splice(draft, ["text"], index - 1, 0, letter(index))
    )
  }
  return doc
}
