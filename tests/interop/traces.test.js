// Real input: what people typed, replayed through stock clients and the relay.

import assert from "node:assert/strict"
import * as Automerge from "@automerge/automerge"
import { converged, freshDocument } from "./lib/client.js"
import { readTrace, replayedByAuthors, replayedPlainly, type } from "./lib/traces.js"
import { turn } from "./lib/wait.js"
import { story } from "./lib/world.js"

const KEYSTROKES = 30_000
const TURN_EVERY = 50
const UPLOAD_MS = 60_000

story(`the first ${KEYSTROKES} keystrokes of the paper end in the expected text`, async world => {
  const { startContent, txns } = readTrace("automerge-paper")
  const keystrokes = txns.slice(0, KEYSTROKES)
  const expected = replayedPlainly(startContent, keystrokes)
  const relay = await world.relay()
  const writer = await world.client("writer", relay)
  const written = writer.create({ text: startContent })
  for (const [index, txn] of keystrokes.entries()) {
    written.change(draft => type(draft, txn))
    if (index % TURN_EVERY === 0) await turn()
  }
  assert.equal(written.doc().text, expected, "the writer itself")
  await writer.saved(written, UPLOAD_MS)
  await readsEverywhere(world, relay, written, expected, KEYSTROKES + 1)
}, { ms: 240_000 })

story("the whole of friendsforever, by both authors, ends in the expected text", async world => {
  const trace = readTrace("friendsforever")
  const docs = replayedByAuthors(trace)
  const { documentId } = freshDocument()
  const relay = await world.relay()
  const clients = []
  for (const name of ["author-0", "author-1"]) clients.push(await world.client(name, relay))
  const handles = clients.map((client, index) =>
    client.repo.import(Automerge.save(docs[index]), { docId: documentId })
  )
  await Promise.all(clients.map((client, index) => client.saved(handles[index], UPLOAD_MS)))
  await converged(handles, () => true, UPLOAD_MS)
  assert.equal(handles[0].doc().text, trace.endContent, "the authors themselves")
  await readsEverywhere(world, relay, handles[0], trace.endContent, trace.txns.length + 1)
}, { ms: 240_000 })

/** A fresh client must read `text`, and so must another one after the relay was restarted. */
async function readsEverywhere(world, relay, written, text, changes) {
  const { url } = written
  const before = await world.client("fresh", relay)
  const found = await before.find(url, UPLOAD_MS)
  await converged([written, found], () => true, UPLOAD_MS)
  assert.equal(found.doc().text, text, "a fresh client")
  assert.equal(Automerge.stats(found.doc()).numChanges, changes)
  await before.dispose()
  await relay.terminate()
  await relay.start()
  const after = await world.client("fresh after the restart", relay)
  const foundAgain = await after.find(url, UPLOAD_MS)
  await converged([written, foundAgain], () => true, UPLOAD_MS)
  assert.equal(foundAgain.doc().text, text, "a fresh client after the restart")
  assert.equal(Automerge.stats(foundAgain.doc()).numChanges, changes)
}
