// Lines that break and come back, and clients that remember.

import assert from "node:assert/strict"
import * as Automerge from "@automerge/automerge"
import { Client, MemoryStorage, converged, sameHeads } from "./lib/client.js"
import { typed } from "./lib/typing.js"
import { silence, until } from "./lib/wait.js"
import { story } from "./lib/world.js"

const QUIET_MS = 400
const RESUME_BYTES_MAX = 1024

story("both sides work offline, come back, and lose nothing", async world => {
  const relay = await world.relay()
  const alice = await world.tapped("alice", relay)
  const bob = await world.tapped("bob", relay)
  const [a, b] = await alice.share({ text: "", by: {} }, bob)
  await converged([a, b])

  await Promise.all([alice.tap.cut(), bob.tap.cut()])
  for (let index = 0; index < 50; index++) {
    a.change(doc => Automerge.splice(doc, ["text"], index, 0, "a"))
  }
  for (let index = 0; index < 40; index++) {
    b.change(doc => {
      Automerge.splice(doc, ["text"], index, 0, "b")
      doc.by[`bob ${index}`] = true
    })
  }
  assert.equal(b.doc().text, "b".repeat(40), "bob is really offline")

  await bob.tap.heal()
  await until("bob is back", () => bob.repo.peers.length > 0)
  await bob.saved(b)
  await alice.tap.heal()
  await converged([a, b], () => a.doc().text.length === 90)
  assert.equal(a.doc().text.replaceAll("a", ""), "b".repeat(40))
  assert.equal(Object.keys(b.doc().by).length, 40)
})

story("a document made offline goes up when the line is there", async world => {
  const relay = await world.relay()
  const alice = await world.tapped("alice", relay)
  await alice.tap.cut()
  const a = alice.create({ made: "offline" })
  a.change(doc => (doc.edited = "offline"))
  await alice.tap.heal()
  await alice.saved(a)
  const bob = await world.client("bob", relay)
  const b = await bob.find(a.url)
  assert.deepEqual(b.doc(), { made: "offline", edited: "offline" })
})

story("a line that breaks again and again loses nothing", async world => {
  const relay = await world.relay()
  const alice = await world.tapped("alice", relay)
  const bob = await world.tapped("bob", relay)
  const [a, b] = await alice.share({ list: [] }, bob)
  for (let round = 0; round < 4; round++) {
    const { tap } = round % 2 ? alice : bob
    a.change(doc => doc.list.push(`alice ${round}`))
    b.change(doc => doc.list.push(`bob ${round}`))
    await tap.cut()
    a.change(doc => doc.list.push(`alice ${round} cut`))
    b.change(doc => doc.list.push(`bob ${round} cut`))
    await tap.heal()
    await converged([a, b], () => a.doc().list.length === (round + 1) * 4)
  }
  assert.deepEqual(a.doc(), b.doc())
})

story("a client that stored its sync state resumes 5,000 changes in 1 KiB each way", async world => {
  const relay = await world.relay()
  const storage = new MemoryStorage()
  const url = await typedAndStored(world, relay, storage)
  const cost = await resumed(world, relay, storage, url)
  world.tell(`resume cost ${JSON.stringify(cost)}`)
  assert.ok(cost.upBytes <= RESUME_BYTES_MAX, `up ${JSON.stringify(cost)}`)
  assert.ok(cost.downBytes <= RESUME_BYTES_MAX, `down ${JSON.stringify(cost)}`)
})

story("it does so even when the relay was restarted meanwhile", async world => {
  const relay = await world.relay()
  const storage = new MemoryStorage()
  const url = await typedAndStored(world, relay, storage)
  await relay.terminate()
  await relay.start()
  const cost = await resumed(world, relay, storage, url)
  world.tell(`resume cost ${JSON.stringify(cost)}`)
  assert.ok(cost.upBytes <= RESUME_BYTES_MAX, `up ${JSON.stringify(cost)}`)
  assert.ok(cost.downBytes <= RESUME_BYTES_MAX, `down ${JSON.stringify(cost)}`)
})

/** Types 5,000 characters, then waits until the client has stored document and sync state. */
async function typedAndStored(world, relay, storage) {
  const writer = new Client("resuming", relay.url, { storage })
  world.adopt(writer)
  await writer.connected()
  const handle = await typed(writer, 5_000)
  await writer.saved(handle)
  await writer.repo.flush()
  const relayId = await writer.relayStorageId()
  await until("the client has stored its sync state", async () => {
    const stored = await storage.load([handle.documentId, "sync-state", relayId])
    if (!stored) return false
    const { sharedHeads } = Automerge.decodeSyncState(stored)
    return sameHeads(sharedHeads, Automerge.getHeads(handle.doc()))
  })
  await writer.dispose()
  return handle.url
}

/**
 * Opens the document again from the same storage, through a tap, and returns what the whole
 * connection cost: payload bytes of every WebSocket message, handshake included.
 */
async function resumed(world, relay, storage, url) {
  const client = await world.tapped("resuming", relay, { storage })
  const handle = await client.find(url)
  assert.equal(handle.doc().text.length, 5_000)
  await client.saved(handle)
  let passed
  do {
    passed = client.tap.count
    await silence(QUIET_MS)
  } while (client.tap.count !== passed)
  return {
    upBytes: client.tap.bytes("up"),
    downBytes: client.tap.bytes("down"),
    messages: passed,
  }
}
