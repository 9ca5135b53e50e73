// Clients with cores of before document chunks (Automerge 2.1), and of before the protocol.

import assert from "node:assert/strict"
import * as Automerge from "@automerge/automerge"
import * as Automerge20 from "automerge-2.0"
import Automerge1 from "automerge-1"
import { freshDocument } from "./lib/client.js"
import { until } from "./lib/wait.js"
import { story } from "./lib/world.js"

const CORES = { "2.0.3": Automerge20, "1.0.1-preview.7": Automerge1 }
const LONG_MS = 60_000

const changes = () => {
  let doc = Automerge.from({ last: 0 })
  for (let n = 1; n <= 300; n += 1) {
    doc = Automerge.change(doc, draft => {
      draft.last = n
      draft[`key ${n}`] = n
    })
  }
  return doc
}
const string = () => Automerge.from({ s: new Automerge.ImmutableString("y".repeat(1_000_000)) })

for (const [what, make, holds] of [
  ["300 changes", changes, doc => doc.last === 300 && Object.keys(doc).length === 301],
  ["a string of 1 MB", string, doc => String(doc.s).length === 1_000_000],
]) {
  story(`cores before document chunks open ${what}`, async world => {
    const { documentId, url } = freshDocument()
    const relay = await world.relay()
    const alice = await world.client("alice", relay)
    const handle = alice.repo.import(Automerge.save(make()), { docId: documentId })
    await alice.saved(handle, LONG_MS)
    // An upload becomes a snapshot at once, what came as a change when it is compacted.
    await until(
      "there is a snapshot",
      () => /compacted|uploaded/.test(relay.log),
      { ms: LONG_MS }
    )
    for (const [version, core] of Object.entries(CORES)) {
      const old = await world.raw(`core ${version}`, relay)
      await old.subscribe(documentId, core)
      await until(`core ${version} has ${what}`, () => holds(old.doc(documentId)), { ms: LONG_MS })
    }
    // A current core gets the snapshot as one chunk of version 2.
    const current = await world.raw("current", relay)
    await current.subscribe(documentId)
    const [first] = current.of("sync", documentId)
    assert.equal(first.data[0], 0x43)
    const bob = await world.client("bob", relay)
    assert.ok(holds((await bob.find(url)).doc()))
  }, { ms: 180_000 })
}

story("a client of before protocol version 1 is told so", async world => {
  const relay = await world.relay()
  const old = await world.socket("old", relay)
  old.send({ type: "join", channelId: "sync", senderId: "old" })
  const { message } = await old.next("error")
  assert.match(message, /before 1\.0/)
  assert.match(message, /update the client/)
  assert.equal((await old.closing("for its protocol")).code, 1002)
})
