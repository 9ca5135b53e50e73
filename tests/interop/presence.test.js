// Presence: broadcasts that nobody stores. Counted on bare sockets, because a stock client
// would hide a duplicate (it drops what it has seen).

import assert from "node:assert/strict"
import { silence, turn, until } from "./lib/wait.js"
import { story } from "./lib/world.js"

const SETTLE_MS = 500
const BROADCASTS = 50

story("each broadcast is one frame per other subscriber, in order across two documents", async world => {
  const relay = await world.relay()
  const sender = await world.tapped("sender", relay)
  const documents = [sender.create({ name: "one" }), sender.create({ name: "two" })]
  for (const handle of documents) await sender.saved(handle)

  // Stock receivers echo every broadcast to the relay; the bare ones see what it does with that.
  const stock = []
  for (const name of ["stock-1", "stock-2"]) {
    const client = await world.tapped(name, relay)
    for (const handle of documents) await client.find(handle.url)
    stock.push(client)
  }
  const bare = []
  for (const name of ["bare-1", "bare-2"]) {
    const raw = await world.raw(name, relay)
    for (const { documentId } of documents) await raw.subscribe(documentId)
    bare.push(raw)
  }

  for (let index = 0; index < BROADCASTS; index++) {
    documents[index % 2].broadcast({ index })
    if (index % 5 === 0) await turn()
  }

  for (const raw of bare) {
    await until(
      `${raw.peerId} has every broadcast`,
      () => raw.of("ephemeral").length >= BROADCASTS,
      { seen: () => raw.of("ephemeral").length }
    )
  }
  for (const client of stock) {
    await until(
      `${client.name} has every broadcast`,
      () => ephemeral(client.tap.down).length >= BROADCASTS,
      { seen: () => ephemeral(client.tap.down).length }
    )
  }
  await silence(SETTLE_MS) // a duplicate would come now

  const order = Array.from({ length: BROADCASTS }, (_, index) => index + 1)
  for (const raw of bare) {
    const frames = raw.of("ephemeral")
    assert.deepEqual(frames.map(({ count }) => count), order, "each once, in the order sent")
    for (const [index, frame] of frames.entries()) {
      assert.equal(frame.senderId, "sender", "the author stays the author")
      assert.equal(frame.targetId, raw.peerId)
      assert.equal(frame.documentId, documents[index % 2].documentId)
    }
    assert.equal(new Set(frames.map(({ sessionId }) => sessionId)).size, 1)
  }
  for (const client of stock) {
    assert.deepEqual(
      ephemeral(client.tap.down).map(({ count }) => count),
      order,
      `${client.name} gets each once`
    )
  }
  assert.equal(ephemeral(sender.tap.down).length, 0, "the author hears nothing back")
})

story("a broadcast reaches the application of a stock client", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const bob = await world.client("bob", relay)
  const [a, b] = await alice.share({ open: true }, bob)
  const heard = []
  b.on("ephemeral-message", ({ message, senderId }) => heard.push({ message, senderId }))
  for (let index = 0; index < 20; index++) a.broadcast({ cursor: index })
  await until("bob hears all", () => heard.length >= 20, { seen: () => heard.length })
  assert.deepEqual(
    heard,
    Array.from({ length: 20 }, (_, index) => ({
      message: { cursor: index },
      senderId: "alice",
    }))
  )
})

story("a broadcast goes to subscribers of its document only", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const [open, other] = [alice.create({ name: "open" }), alice.create({ name: "other" })]
  for (const handle of [open, other]) await alice.saved(handle)
  const raw = await world.raw("raw", relay)
  await raw.subscribe(open.documentId)
  other.broadcast({ to: "nobody" })
  open.broadcast({ to: "raw" })
  await raw.next("ephemeral", open.documentId)
  assert.equal(raw.of("ephemeral", other.documentId).length, 0)
})

const ephemeral = messages => messages.filter(({ type }) => type === "ephemeral")
