// Edits of one document as Yjs updates, for the load driver: the document first, then each
// keystroke, all with their length (u32, little-endian) in front.
//
// node updates.js small|paper COUNT

import { readFileSync, writeSync } from "node:fs"
import { gunzipSync } from "node:zlib"
import * as Y from "yjs"

const [what, count] = [process.argv[2], Number(process.argv[3])]
const doc = new Y.Doc()
const text = doc.getText("text")

if (what === "paper") {
  const file = new URL("../../data/automerge-paper.json.gz", import.meta.url)
  const { txns } = JSON.parse(gunzipSync(readFileSync(file)))
  for (const { patches } of txns) {
    doc.transact(() => {
      for (const [position, deleted, inserted] of patches) {
        if (deleted > 0) text.delete(position, deleted)
        if (inserted !== "") text.insert(position, inserted)
      }
    })
  }
} else {
  for (let at = 0; at < 10; at++) text.insert(at, "x")
}

const updates = [Y.encodeStateAsUpdate(doc)]
doc.on("update", update => updates.push(update))
const letters = "etaoin shrdlu"
let seed = 1
let at = text.length
for (let n = 0; n < count; n++) {
  seed = (seed * 48271) % 2147483647
  text.insert(at, letters[seed % letters.length])
  at += 1
}

for (const update of updates) {
  const length = Buffer.alloc(4)
  length.writeUInt32LE(update.length)
  write(length)
  write(update)
}

function write(bytes) {
  for (let from = 0; from < bytes.length; ) {
    try {
      from += writeSync(1, bytes, from)
    } catch (error) {
      if (error.code !== "EAGAIN") throw error
    }
  }
}
