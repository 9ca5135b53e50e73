// The documents: saved ones, made of the recorded editing sessions. Making the large one takes a
// minute, so they are kept.

import * as Automerge from "@automerge/automerge"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import { unseenAncestors } from "../../interop/lib/ancestors.js"

const KEPT = fileURLToPath(new URL("../node_modules/.cache/reconverge-bench/", import.meta.url))

export const DOCUMENTS = { small: 10, friendsforever: 26_078, "automerge-paper": 259_778 }

/** The saved document of this name, and how many changes it has. */
export function saved(name) {
  const path = `${KEPT}${name}.automerge`
  if (!existsSync(path)) {
    mkdirSync(KEPT, { recursive: true })
    writeFileSync(path, made(name))
  }
  return readFileSync(path)
}

function made(name) {
  if (name === "friendsforever") return byAuthors(read(name))
  const txns = read("automerge-paper").txns.slice(0, DOCUMENTS[name] - 1)
  return Automerge.save(txns.reduce(typed, begun()))
}

function read(name) {
  const path = new URL(`../../data/${name}.json.gz`, import.meta.url)
  return JSON.parse(gunzipSync(readFileSync(path)))
}

const begun = () =>
  Automerge.change(Automerge.init({ actor: "00" }), { time: 0 }, draft => (draft.text = ""))

const typed = (doc, { patches }) =>
  Automerge.change(doc, { time: 0 }, draft => {
    for (const [position, deleted, inserted] of patches) {
      Automerge.splice(draft, ["text"], position, deleted, inserted)
    }
  })

/** Every transaction where its author stood; what one did at once, one after the other. */
function byAuthors({ txns, numAgents }) {
  const start = begun()
  const authors = Array.from({ length: numAgents }, (_, i) => Automerge.clone(start, { actor: `0${i + 1}` }))
  const seen = authors.map(() => new Set())
  const changes = []
  for (const [at, txn] of txns.entries()) {
    const { agent } = txn
    const missing = unseenAncestors(txns, txn.parents, seen[agent])
    if (missing.length > 0) {
      ;[authors[agent]] = Automerge.applyChanges(authors[agent], missing.map(at => changes[at]))
    }
    authors[agent] = typed(authors[agent], txn)
    changes[at] = Automerge.getLastLocalChange(authors[agent])
    seen[agent].add(at)
  }
  return Automerge.save(authors.reduce((all, doc) => Automerge.merge(all, doc)))
}
