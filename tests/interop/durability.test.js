// What the relay acknowledged, it has. What it could not store, it did not acknowledge, and
// stores in the end without the clients' help.

import assert from "node:assert/strict"
import { once } from "node:events"
import * as Automerge from "@automerge/automerge"
import { encodeHeads } from "@automerge/automerge-repo"
import { WebSocket } from "ws"
import { converged, freshDocument, sameHeads } from "./lib/client.js"
import { written } from "./lib/typing.js"
import { silence, turn, until, within } from "./lib/wait.js"
import { story } from "./lib/world.js"

const HELD_MS = 1_500
const QUIET_MS = 3_000
const SETTLE_MS_MAX = 10_000
const MESSAGES_UNTIL_QUIET_MAX = 4

story("remote-heads fires with the heads that the relay has stored", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const storageId = await alice.relayStorageId()
  const handle = alice.create({ step: 0 })
  const fired = []
  handle.on("remote-heads", event => fired.push(event))
  for (let step = 1; step <= 5; step++) {
    handle.change(doc => (doc.step = step))
    const heads = handle.heads()
    await until(
      `remote-heads for step ${step}`,
      () => fired.some(event => event.storageId === storageId && sameHeads(event.heads, heads)),
      { seen: () => fired }
    )
  }
  assert.ok(fired.every(event => event.storageId === storageId))
  assert.ok(fired.every(event => event.timestamp > 0))
})

story("the relay keeps its storage id across a restart", async world => {
  const relay = await world.relay()
  const before = await (await world.client("before", relay)).relayStorageId()
  await relay.terminate()
  await relay.start()
  const after = await (await world.client("after", relay)).relayStorageId()
  assert.equal(after, before)
})

story("clients live through a relay restart and go on", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const bob = await world.client("bob", relay)
  const [a, b] = await alice.share({ list: [] }, bob)
  for (let round = 0; round < 2; round++) {
    a.change(doc => doc.list.push(`before ${round}`))
    await alice.saved(a)
    const { code, signal } = await relay.terminate()
    assert.deepEqual({ code, signal }, { code: 0, signal: null })
    a.change(doc => doc.list.push(`alice alone ${round}`))
    b.change(doc => doc.list.push(`bob alone ${round}`))
    await relay.start()
    await converged([a, b], () => a.doc().list.length === (round + 1) * 3)
  }
  await alice.saved(a)
  await relay.terminate()
  await relay.start()
  const fresh = await world.client("fresh", relay)
  const found = await fresh.find(a.url)
  await converged([a, found])
})

// A stock client that is handling a sync message when its socket begins to close throws in the
// middle and can never change that document again ("outdated document"). So a relay that ends
// has to leave a moment between the last message and the close.
story("a relay that ends amid edits leaves every client's documents usable", async world => {
  const relay = await world.relay()
  const alice = await world.tapped("alice", relay)
  const bob = await world.client("bob", relay)
  const [a, b] = await alice.share({ list: [] }, bob)
  for (let round = 0; round < 5; round++) {
    a.change(doc => doc.list.push(`alice ${round}`))
    b.change(doc => doc.list.push(`bob ${round}`))
    await within("alice's edit goes up", alice.tap.next("up"))
    await silence(round) // so that the end comes in different moments of its way to bob
    await relay.terminate()
    await relay.start()
    a.change(doc => (doc.alice = round))
    b.change(doc => (doc.bob = round))
    await converged([a, b], () => a.doc().bob === round && b.doc().alice === round)
  }
  assert.equal(a.doc().list.length, 10)
})

story("SIGTERM closes every socket with 1012 and ends with exit code 0", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const handle = alice.create({ kept: true })
  await alice.saved(handle)
  const joined = await world.raw("joined", relay)
  const silent = new WebSocket(relay.url)
  await within("the silent socket opens", once(silent, "open"))
  const silentClosed = once(silent, "close")
  const outcome = await relay.terminate()
  assert.deepEqual(outcome, { code: 0, signal: null })
  const { code } = await joined.closing("the relay ended")
  assert.equal(code, 1012)
  const [silentCode] = await within("the silent socket closes", silentClosed)
  assert.equal(silentCode, 1012)
  assert.equal(joined.of("leave").length, 0, "no leave: stock clients drop it, others choke on it")
})

story("nothing acknowledged is missing after kill -9", async world => {
  const relay = await world.relay()
  for (let round = 0; round < 3; round++) {
    const alice = await world.client(`alice-${round}`, relay)
    const handles = [1, 2, 3].map(number => alice.create({ number, list: [] }))
    // Edits go on until the very kill; only what was acknowledged before it is owed.
    const owed = new Map()
    for (let edit = 0; edit < 20; edit++) {
      for (const handle of handles) {
        handle.change(doc => doc.list.push(edit))
        owed.set(handle, await alice.acknowledged(handle))
      }
      await turn()
      if (edit === 10) await Promise.all(handles.map(handle => alice.saved(handle)))
    }
    for (const handle of handles) owed.set(handle, await alice.acknowledged(handle))
    await relay.kill()
    await alice.dispose()
    await relay.start()
    const fresh = await world.client(`fresh-${round}`, relay)
    for (const [handle, heads] of owed) {
      assert.ok(heads.length > 0, "something was acknowledged")
      const found = await fresh.find(handle.url)
      assert.ok(found.doc().list.length >= 11, "what was saved at edit 10 is there")
      const missing = heads.filter(head => !hasHead(found, head))
      assert.deepEqual(missing, [], "every acknowledged head is there")
    }
  }
})

story("an uploaded document chunk that was acknowledged survives kill -9", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const { documentId, url } = freshDocument()
  const doc = written(1_000)
  const handle = alice.repo.import(Automerge.save(doc), { docId: documentId })
  await alice.saved(handle)
  await relay.kill()
  await alice.dispose()
  await relay.start()
  const fresh = await world.client("fresh", relay)
  const found = await fresh.find(url)
  assert.deepEqual(found.heads(), encodeHeads(Automerge.getHeads(doc)))
  assert.equal(found.doc().text, doc.text)
})

story("one failed fsync: every edit is stored in the end and nobody reconnects", async world => {
  const relay = await world.relay({ faulty: true })
  const clients = []
  for (const name of ["alice", "bob", "carol"]) clients.push(await world.tapped(name, relay))
  const [alice] = clients
  const created = alice.create({ list: [] })
  await alice.saved(created)
  const handles = await Promise.all(clients.map(client => client.find(created.url)))
  const other = alice.create({ other: 0 })
  await alice.saved(other)

  for (let round = 0; round < 3; round++) {
    await relay.command("fail-sync")
    for (const [index, handle] of handles.entries()) {
      handle.change(doc => doc.list.push(`${clients[index].name} ${round}`))
    }
    other.change(doc => (doc.other = round + 1))
    await converged(handles, () => created.doc().list.length === (round + 1) * 3)
    await Promise.all(clients.map((client, index) => client.saved(handles[index])))
    await alice.saved(other)
  }

  for (const client of clients) {
    assert.equal(client.disconnects, 0, `${client.name} was never cut off`)
    assert.equal(client.tap.connections, 1, `${client.name} connected once`)
  }
  assert.ok(relay.running)
  await Promise.all(clients.map(client => client.dispose()))
  await relay.kill()
  await relay.start()
  const fresh = await world.client("fresh", relay)
  const found = await fresh.find(created.url)
  assert.equal(found.doc().list.length, 9)
  assert.equal((await fresh.find(other.url)).doc().other, 3)
})

story("a failed fsync of a first upload is made up for without a reconnect", async world => {
  const relay = await world.relay({ faulty: true })
  const alice = await world.tapped("alice", relay)
  await relay.command("fail-sync")
  const { documentId, url } = freshDocument()
  const doc = written(200)
  const handle = alice.repo.import(Automerge.save(doc), { docId: documentId })
  await alice.saved(handle)
  assert.equal(alice.tap.connections, 1)
  await alice.dispose()
  await relay.kill()
  await relay.start()
  const fresh = await world.client("fresh", relay)
  assert.equal((await fresh.find(url)).doc().text, doc.text)
})

story("edits of the time when the disk was full are stored without a reconnect", async world => {
  const relay = await world.relay({ faulty: true })
  const alice = await world.tapped("alice", relay)
  const bob = await world.tapped("bob", relay)
  const created = alice.create({ n: 0, list: [] })
  await alice.saved(created)
  const found = await bob.find(created.url)
  await relay.command("fill")
  created.change(doc => (doc.n = 1))
  await relay.command("refused 1")
  for (const tap of [alice.tap, bob.tap]) tap.reset()
  for (let n = 1; n <= 10; n++) {
    created.change(doc => doc.list.push(`alice ${n}`))
    found.change(doc => doc.list.push(`bob ${n}`))
  }
  const fresh = alice.create({ fresh: true })
  await relay.command("refused 10")
  for (const { name, tap } of [alice, bob]) {
    const messages = tap.up.length + tap.down.length
    world.tell(`messages of ${name} meanwhile: ${messages}`)
    // Each edit, and a request of bob's client for its own; nothing for each second.
    assert.ok(messages <= 30, `${name}: ${messages} messages`)
  }
  await relay.command("empty")
  await alice.saved(created)
  await bob.saved(found)
  await alice.saved(fresh)
  await converged([created, found], () => created.doc().list.length === 20)
  for (const { name, tap } of [alice, bob]) {
    assert.equal(tap.connections, 1, `${name} connected once`)
  }
})

story("remote-heads does not fire while syncs are held back, and does afterwards", async world => {
  const relay = await world.relay({ faulty: true })
  const alice = await world.client("alice", relay)
  const handle = alice.create({ step: 0 })
  await alice.saved(handle)
  const before = handle.heads()

  await relay.command("hold-syncs")
  const fired = []
  handle.on("remote-heads", event => fired.push(event))
  handle.change(doc => (doc.step = 1))
  await silence(HELD_MS)
  assert.deepEqual(fired, [], "no acknowledgement of what is not on disk")
  assert.deepEqual(await alice.acknowledged(handle), before)

  await relay.command("release-syncs")
  await alice.saved(handle)
  assert.equal(fired.length, 1)
  assert.ok(sameHeads(fired[0].heads, handle.heads()))
})

story("the same document uploaded by two clients at once keeps both tails", async world => {
  const relay = await world.relay()
  const base = Automerge.save(written(200))
  const { documentId, url } = freshDocument()
  const clients = []
  const handles = []
  for (const name of ["alice", "bob"]) {
    const client = await world.client(name, relay, { online: false })
    const handle = client.repo.import(base, { docId: documentId })
    for (let index = 0; index < 30; index++) {
      handle.change(doc => {
        Automerge.splice(doc, ["text"], doc.text.length, 0, name[0].toUpperCase())
        doc[`${name} ${index}`] = true
      })
    }
    clients.push(client)
    handles.push(handle)
  }
  for (const client of clients) client.goOnline()
  await converged(handles)
  await Promise.all(clients.map((client, index) => client.saved(handles[index])))
  assert.equal(Object.keys(handles[0].doc()).length, 61)
  assert.equal(handles[0].doc().text.length, 199 + 60)

  const fresh = await world.client("fresh", relay)
  const found = await fresh.find(url)
  await converged([handles[0], found])
  assert.equal(Automerge.getAllChanges(found.doc()).length, 260)
  await relay.kill()
  await relay.start()
  const later = await world.client("later", relay)
  await converged([handles[0], await later.find(url)])
})

story("with a refused change and a reader's edits present, the wire falls silent", async world => {
  const relay = await world.relay({ faulty: true })
  const alice = await world.tapped("alice", relay)
  const bob = await world.tapped("bob", relay)
  const a = alice.create({ list: ["start"] })
  // Enough history that a client sends one change as a change, not its whole document.
  for (let index = 0; index < 20; index++) a.change(doc => (doc.filler = index))
  await alice.saved(a)
  const b = await bob.find(a.url)
  await relay.command("read-only")
  const reader = await world.tapped("reader", relay)
  const r = await reader.find(a.url) // a peer's access to a document is settled when it opens it
  await relay.command("read-write")
  const clients = [alice, bob, reader]

  const counted = await countUntilQuiet(clients, () => {
    b.update(doc => Automerge.applyChanges(doc, [changeWithFalseStart(doc)])[0])
    r.change(doc => doc.list.push("a reader's edit"))
  })
  world.tell(`messages after the last edit: ${JSON.stringify(counted)}`)
  for (const [name, count] of Object.entries(counted)) {
    assert.ok(count <= MESSAGES_UNTIL_QUIET_MAX, `${name}: ${count} messages`)
  }
  assert.equal(b.doc().refused, true, "bob has the change that the relay refused")
  assert.equal(a.doc().refused, undefined, "nobody else was given it")
  assert.deepEqual([...a.doc().list], ["start"], "the reader's edit went nowhere")

  // An honest edit still reaches everyone, and then it is quiet again.
  const again = await countUntilQuiet(clients, () => {
    a.change(doc => doc.list.push("alice"))
  })
  world.tell(`messages after an honest edit: ${JSON.stringify(again)}`)
  assert.ok(b.doc().list.includes("alice"))
  assert.ok(r.doc().list.includes("alice"))
  for (const [name, count] of Object.entries(again)) {
    assert.ok(count <= MESSAGES_UNTIL_QUIET_MAX, `${name}: ${count} messages`)
  }

  // So it is after everyone came back on a new line.
  const reconnected = await countUntilQuiet([alice, bob], async () => {
    for (const { tap } of [alice, bob]) await tap.cut()
    for (const { tap } of [alice, bob]) await tap.heal()
    await until("both are back", () => alice.tap.connections === 2 && bob.tap.connections === 2)
  })
  world.tell(`messages after a reconnect, handshake left out: ${JSON.stringify(reconnected)}`)
  for (const [name, count] of Object.entries(reconnected)) {
    assert.ok(count <= MESSAGES_UNTIL_QUIET_MAX, `${name}: ${count} messages`)
  }
  const fresh = await world.client("fresh", relay)
  const found = await fresh.find(a.url)
  assert.deepEqual([...found.doc().list], ["start", "alice"])
  assert.equal(found.doc().refused, undefined)
}, { ms: 90_000 })

/**
 * Does `provoke`, then waits until `QUIET_MS` pass without a message on any of the clients'
 * lines; fails if that takes too long. Returns how many messages passed per client, in both
 * directions, handshakes left out.
 */
async function countUntilQuiet(clients, provoke) {
  for (const { tap } of clients) tap.reset()
  await provoke()
  const started = performance.now()
  const last = () =>
    Math.max(started, ...clients.flatMap(({ tap }) => [...tap.up, ...tap.down]).map(({ at }) => at))
  while (performance.now() - last() < QUIET_MS) {
    await silence(50)
    if (performance.now() - started > SETTLE_MS_MAX + QUIET_MS) {
      const counts = clients.map(({ name, tap }) => [name, tap.count])
      assert.fail(`the wire does not fall silent: ${JSON.stringify(counts)}`)
    }
  }
  const handshakes = ["join", "peer"]
  return Object.fromEntries(
    clients.map(({ name, tap }) => [
      name,
      [...tap.up, ...tap.down].filter(({ type }) => !handshakes.includes(type)).length,
    ])
  )
}

/**
 * A change on top of `doc` whose ops claim counters that its own past already used. Automerge
 * takes it in; a relay that checks structure does not.
 */
function changeWithFalseStart(doc) {
  return Automerge.encodeChange({
    actor: "f".repeat(32),
    seq: 1,
    startOp: 1,
    time: 0,
    message: null,
    deps: Automerge.getHeads(doc),
    ops: [{ action: "set", obj: "_root", key: "refused", value: true, pred: [] }],
  })
}

/** Whether the handle's history contains this head (in url form). */
function hasHead(handle, head) {
  return Automerge.topoHistoryTraversal(handle.doc()).some(
    hash => encodeHeads([hash])[0] === head
  )
}
