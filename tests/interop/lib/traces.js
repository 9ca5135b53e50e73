// Recorded editing sessions and how to replay them. A position counts Unicode code points; in
// both traces every character is one UTF-16 unit, which is checked, so positions are indexes.

import { readFileSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import * as Automerge from "@automerge/automerge"
import { unseenAncestors } from "./ancestors.js"
import { sameHeads } from "./client.js"

export function readTrace(name) {
  const path = new URL(`../../data/${name}.json.gz`, import.meta.url)
  const trace = JSON.parse(gunzipSync(readFileSync(path)))
  for (const { patches } of trace.txns) {
    for (const [, , inserted] of patches) {
      if (/[\ud800-\udfff]/.test(inserted)) throw new Error(`${name} has characters of two units`)
    }
  }
  return trace
}

/** What a plain string becomes by these transactions, one after the other. */
export function replayedPlainly(text, txns) {
  for (const { patches } of txns) {
    for (const [position, deleted, inserted] of patches) {
      text = text.slice(0, position) + inserted + text.slice(position + deleted)
    }
  }
  return text
}

/** Applies one transaction to the `text` of an Automerge draft. */
export function type(draft, { patches }) {
  for (const [position, deleted, inserted] of patches) {
    Automerge.splice(draft, ["text"], position, deleted, inserted)
  }
}

/**
 * Replays a trace of several authors, each transaction as one change at exactly the heads that
 * its `parents` name. Returns one document per author, holding what that author had seen at
 * the end; only together do they hold everything.
 */
export function replayedByAuthors({ txns, numAgents }) {
  const start = Automerge.change(
    Automerge.init({ actor: "00".repeat(16) }),
    { time: 0 },
    draft => (draft.text = "")
  )
  const [root] = Automerge.getHeads(start)
  const authors = Array.from({ length: numAgents }, (_, index) => ({
    doc: Automerge.clone(start, { actor: `${index + 1}`.repeat(32) }),
    seen: new Set(),
  }))
  const changes = []
  const hashes = []

  for (const [index, txn] of txns.entries()) {
    const author = authors[txn.agent]
    const missing = unseenAncestors(txns, txn.parents, author.seen)
    if (missing.length > 0) {
      const [doc] = Automerge.applyChanges(author.doc, missing.map(at => changes[at]))
      author.doc = doc
    }
    const heads = txn.parents.length ? txn.parents.map(at => hashes[at]) : [root]
    if (!sameHeads(Automerge.getHeads(author.doc), heads)) {
      throw new Error(`author ${txn.agent} does not stand at the parents of ${index}`)
    }
    author.doc = Automerge.change(author.doc, { time: 0 }, draft => type(draft, txn))
    changes[index] = Automerge.getLastLocalChange(author.doc)
    hashes[index] = Automerge.getHeads(author.doc)[0]
    author.seen.add(index)
  }
  return authors.map(({ doc }) => doc)
}
