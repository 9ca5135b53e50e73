// Documents that are large in bytes or in operations, up and down.

import assert from "node:assert/strict"
import { randomBytes } from "node:crypto"
import * as Automerge from "@automerge/automerge"
import { converged, freshDocument } from "./lib/client.js"
import { story } from "./lib/world.js"

const LARGE_MS = 60_000
const BLOB_BYTES = 20_000_000
const CHARACTERS = 2_000_000
const PASTED = 4_300_000
const SENTENCE = "the quick brown fox jumps over the lazy dog; "

story("20 MB in one byte value go up and down", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const blob = new Uint8Array(randomBytes(BLOB_BYTES))
  const handle = alice.create({ blob })
  await alice.saved(handle, LARGE_MS)
  handle.change(doc => (doc.edited = true))
  await alice.saved(handle, LARGE_MS)

  const bob = await world.client("bob", relay)
  const found = await bob.find(handle.url, LARGE_MS)
  await converged([handle, found], () => true, LARGE_MS) // it may come in several messages
  assert.equal(Buffer.compare(found.doc().blob, blob), 0)
  assert.equal(found.doc().edited, true)
  await relay.terminate()
  await relay.start()
  const later = await world.client("later", relay)
  const foundLater = await later.find(handle.url, LARGE_MS)
  await converged([handle, foundLater], () => true, LARGE_MS)
  assert.equal(Buffer.compare(foundLater.doc().blob, blob), 0)
}, { ms: 120_000 })

story("a paste of 4.3 million characters is kept, and what comes after it", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const handle = alice.create({ text: "" })
  await alice.saved(handle)
  const paste = "paste ".repeat(Math.ceil(PASTED / 6)).slice(0, PASTED)
  handle.change(doc => Automerge.splice(doc, ["text"], 0, 0, paste))
  handle.change(doc => (doc.after = true))
  await alice.saved(handle, LARGE_MS)
  const bob = await world.client("bob", relay)
  const found = await bob.find(handle.url, LARGE_MS)
  await converged([handle, found], () => true, LARGE_MS)
  assert.ok(found.doc().text === paste)
  assert.equal(found.doc().after, true)
}, { ms: 180_000 })

for (const changes of [1, 100]) {
  story(`2 million operations in ${changes === 1 ? "one change" : `${changes} changes`} go up and down`, async world => {
    const text = SENTENCE.repeat(Math.ceil(CHARACTERS / SENTENCE.length)).slice(0, CHARACTERS)
    const share = CHARACTERS / changes
    let doc = Automerge.from({ text: "" })
    for (let at = 0; at < CHARACTERS; at += share) {
      doc = Automerge.change(doc, draft =>
        Automerge.splice(draft, ["text"], at, 0, text.slice(at, at + share))
      )
    }
    assert.ok(Automerge.stats(doc).numOps >= CHARACTERS)

    const { documentId, url } = freshDocument()
    const relay = await world.relay()
    const alice = await world.client("alice", relay)
    const handle = alice.repo.import(Automerge.save(doc), { docId: documentId })
    await alice.saved(handle, LARGE_MS)
    const bob = await world.client("bob", relay)
    const found = await bob.find(url, LARGE_MS)
    await converged([handle, found], () => true, LARGE_MS)
    assert.ok(found.doc().text === text, "the text that came down is the text that went up")
    await bob.saved(found)

    // It stays a living document.
    found.change(draft => Automerge.splice(draft, ["text"], 0, 0, "bob: "))
    await bob.saved(found, LARGE_MS)
  }, { ms: 180_000 })
}
