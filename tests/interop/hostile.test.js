// Peers that are broken or mean. Whatever they send, it costs them at most their own
// connection; two honest clients work on beside them and notice nothing.

import assert from "node:assert/strict"
import * as Automerge from "@automerge/automerge"
import { converged, freshDocument } from "./lib/client.js"
import { firstRequest } from "./lib/raw.js"
import { written } from "./lib/typing.js"
import { silence, until } from "./lib/wait.js"
import { documentClaiming, encode, syncMessage } from "./lib/wire.js"
import { story } from "./lib/world.js"

/** Two honest clients with a document that must keep syncing. */
class Honest {
  static async at(world, relay) {
    const honest = new Honest()
    honest.relay = relay
    honest.pid = relay.pid
    honest.alice = await world.client("honest-alice", relay)
    honest.bob = await world.client("honest-bob", relay)
    honest.a = honest.alice.create({ list: [] })
    await honest.alice.saved(honest.a)
    honest.b = await honest.bob.find(honest.a.url)
    return honest
  }

  async work(what) {
    this.a.change(doc => doc.list.push(`alice after ${what}`))
    this.b.change(doc => doc.list.push(`bob after ${what}`))
    await converged([this.a, this.b])
    assert.ok(this.relay.running, `the relay lives after ${what}`)
    assert.equal(this.relay.pid, this.pid)
    assert.equal(this.alice.disconnects + this.bob.disconnects, 0, `nobody else is cut by ${what}`)
  }
}

const undecodable = [
  ["a null", Buffer.from("f6", "hex")],
  ["a byte string", Buffer.from("4568656c6c6f", "hex")],
  ["an array", encode([1, 2, 3])],
  ["a map without a type", encode({ senderId: "mallory" })],
  ["a map cut short", encode({ type: "join", senderId: "mallory" }).subarray(0, 9)],
  ["a string that claims four gigabytes", Buffer.from("a164747970657affffffff", "hex")],
  ["an array that claims 2^60 items", Buffer.from("a164747970659b1000000000000000", "hex")],
  ["ten thousand nested arrays", Buffer.alloc(10_000, 0x81)],
  ["noise", Buffer.from("ff00deadbeef85c1", "hex")],
]

for (const [name, bytes] of undecodable) {
  story(`${name} instead of a join costs its sender the connection and nobody else anything`, async world => {
    const relay = await world.relay()
    const honest = await Honest.at(world, relay)
    const mallory = await world.socket("mallory", relay)
    mallory.sendBytes(bytes)
    await mallory.closing(name)
    await honest.work(name)
  })
}

story("undecodable frames after the join cost only that connection", async world => {
  const relay = await world.relay()
  const honest = await Honest.at(world, relay)
  for (const [index, [name, bytes]] of undecodable.entries()) {
    const mallory = await world.raw(`mallory-${index}`, relay)
    mallory.sendBytes(bytes)
    await mallory.closing(name)
  }
  await honest.work("all of them")
})

story("messages that decode but make no sense leave everyone else at work", async world => {
  const relay = await world.relay()
  const honest = await Honest.at(world, relay)
  const { documentId } = honest.a
  const from = (senderId, message) => ({ senderId, targetId: "relay", ...message })
  const change = Buffer.from(Automerge.getAllChanges(written(1))[0])
  const torn = Buffer.from(change)
  torn[torn.length - 1] ^= 0xff
  const nonsense = [
    ["an empty frame", raw => raw.sendBytes(Buffer.alloc(0))],
    ["a text frame", raw => raw.sendText("hello")],
    ["an unknown type", raw => raw.send(from(raw.peerId, { type: "no-such-type" }))],
    ["a second join", raw => raw.send(from(raw.peerId, { type: "join", supportedProtocolVersions: ["1"] }))],
    ["someone else's name", raw => raw.send(from("honest-alice", { type: "sync", documentId, data: syncMessage({}) }))],
    ["a leave", raw => raw.send(from(raw.peerId, { type: "leave" }))],
    ["no document id", raw => raw.send(from(raw.peerId, { type: "sync", data: syncMessage({}) }))],
    ["a document id that is none", raw => raw.sendSync("../../etc/passwd", syncMessage({}))],
    ["empty sync data", raw => raw.sendSync(documentId, Buffer.alloc(0))],
    ["sync data that is noise", raw => raw.sendSync(documentId, Buffer.from("42ffffffffffffffffff01", "hex"))],
    ["a change that is noise", raw => raw.sendSync(documentId, syncMessage({ heads: ["ab".repeat(32)], changes: [Buffer.alloc(64, 7)] }))],
    ["a change with a false checksum", raw => raw.sendSync(documentId, syncMessage({ heads: ["ab".repeat(32)], changes: [torn] }))],
    ["heads that nobody has", raw => raw.sendSync(documentId, syncMessage({ heads: ["cd".repeat(32)] }))],
    ["a need that nobody can meet", raw => raw.sendSync(documentId, syncMessage({ need: ["cd".repeat(32)] }))],
    ["a broadcast without data", raw => raw.send(from(raw.peerId, { type: "ephemeral", documentId, count: -1 }))],
    ["a subscription to nothing", raw => raw.send(from(raw.peerId, { type: "remote-subscription-change", add: [1, null] }))],
    ["false remote heads", raw => raw.send(from(raw.peerId, { type: "remote-heads-changed", documentId, newHeads: { x: 1 } }))],
  ]
  for (const [index, [name, say]] of nonsense.entries()) {
    const mallory = await world.raw(`mallory-${index}`, relay)
    say(mallory)
    await honest.work(name)
  }
  const fresh = await world.client("fresh", relay)
  const found = await fresh.find(honest.a.url)
  await converged([honest.a, found])
})

story("an unsupported protocol version is told so", async world => {
  const relay = await world.relay()
  const raw = await world.socket("tomorrow", relay)
  raw.send({ type: "join", senderId: "tomorrow", peerMetadata: {}, supportedProtocolVersions: ["2"] })
  const { targetId } = await raw.next("error")
  assert.equal(targetId, "tomorrow")
  await raw.closing("the version")
})

story("a second join with a live peer id ends nobody, and both are served", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const handle = alice.create({ round: 0 })
  await alice.saved(handle)

  const old = await world.raw("twin", relay)
  await old.subscribe(handle.documentId)
  const recent = await world.raw("twin", relay)
  await recent.subscribe(handle.documentId)
  handle.change(doc => (doc.round = 1))
  for (const twin of [old, recent]) {
    await until("a twin is served", () => twin.doc(handle.documentId).round === 1)
    assert.equal(twin.closed, undefined, "it stays")
  }
  assert.equal(alice.disconnects, 0)
})

const LIES = [
  [
    "whose claimed heads are false",
    (saved, lie) => ({ heads: [lie], changes: [documentClaiming(saved, lie)] }),
  ],
  [
    "whose claimed heads are false under a true announcement",
    (saved, lie, truth) => ({ heads: [truth], changes: [documentClaiming(saved, lie)] }),
  ],
]

for (const [name, build] of LIES) {
  story(`a document chunk ${name} is neither stored nor served`, async world => {
    const relay = await world.relay()
    const honest = await Honest.at(world, relay)
    const doc = written(200)
    const [truth] = Automerge.getHeads(doc)
    const lie = "00112233".repeat(8)
    const { documentId, url } = freshDocument()

    const mallory = await world.raw("mallory", relay)
    mallory.sendSync(documentId, firstRequest())
    mallory.sendSync(documentId, syncMessage({ ...build(Automerge.save(doc), lie, truth), v2: true }))
    await honest.work("the lie")
    await neverServed(world, relay, { documentId, url, lie, asker: "asker" })
    for (const { data } of mallory.of("sync", documentId)) {
      assert.ok(!Automerge.decodeSyncMessage(data).heads.includes(lie), "the lie is not acknowledged")
    }
    await honest.work("asking for it")

    await relay.terminate()
    await relay.start()
    await neverServed(world, relay, { documentId, url, lie, asker: "later asker" })

    // The same upload without the lie is taken: it was the claim that was refused.
    const truthful = await world.raw("truthful", relay)
    truthful.sendSync(documentId, syncMessage({ heads: [truth], changes: [Automerge.save(doc)], v2: true }))
    await until(
      "the true document is acknowledged",
      () => truthful.relayHeads(documentId)?.includes(truth),
      { seen: () => truthful.relayHeads(documentId) }
    )
    const fresh = await world.client("fresh", relay)
    const found = await fresh.find(url)
    assert.equal(found.doc().text, doc.text)
  })
}

/** A fresh stock client and a bare socket ask for the document; neither may get anything. */
async function neverServed(world, relay, { documentId, url, lie, asker }) {
  const stock = await world.client(asker, relay)
  await assert.rejects(stock.find(url), /unavailable/)
  const raw = await world.raw(`${asker} (bare)`, relay)
  raw.sendSync(documentId, firstRequest(), "request")
  await raw.next("doc-unavailable", documentId)
  await silence(300) // what is served wrongly would come now
  for (const { data } of raw.of("sync", documentId)) {
    const { heads, changes } = Automerge.decodeSyncMessage(data)
    assert.ok(!heads.includes(lie), "the false heads are not advertised")
    assert.deepEqual(heads, [], "nothing is advertised")
    const served = Automerge.loadIncremental(Automerge.init(), Buffer.concat(changes))
    assert.equal(Automerge.stats(served).numChanges, 0, "nothing is served")
  }
}
