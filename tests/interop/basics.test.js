// What every user does in the first minute, with the current stock client and an old one.

import assert from "node:assert/strict"
import * as Automerge from "@automerge/automerge"
import { decodeHeads } from "@automerge/automerge-repo"
import { Client1 } from "./lib/client-1.js"
import { MemoryStorage, converged, freshDocument, sameHeads } from "./lib/client.js"
import { typed } from "./lib/typing.js"
import { turn, until } from "./lib/wait.js"
import { story } from "./lib/world.js"

story("a document that one client creates is found by another", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const bob = await world.client("bob", relay)
  const created = alice.create({ title: "plans", lines: ["one"] })
  const found = await bob.find(created.url)
  await converged([created, found])
  assert.deepEqual(found.doc(), { title: "plans", lines: ["one"] })
})

story("an edit on either side reaches the other", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const bob = await world.client("bob", relay)
  const a = alice.create({ by: "nobody" })
  const b = await bob.find(a.url)
  a.change(doc => (doc.by = "alice"))
  await until("bob sees alice's edit", () => b.doc().by === "alice")
  b.change(doc => (doc.by = "bob"))
  await until("alice sees bob's edit", () => a.doc().by === "bob")
  await converged([a, b])
})

story("concurrent edits by two clients converge and keep both", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const bob = await world.client("bob", relay)
  const [a, b] = await alice.share({ text: "", count: {} }, bob)
  for (let round = 0; round < 30; round++) {
    a.change(doc => {
      Automerge.splice(doc, ["text"], 0, 0, "a")
      doc.count.alice = round
    })
    b.change(doc => {
      Automerge.splice(doc, ["text"], doc.text.length, 0, "b")
      doc.count.bob = round
    })
    await turn()
  }
  await converged([a, b], () => a.doc().text.length === 60)
  assert.deepEqual(a.doc(), b.doc())
  assert.equal(a.doc().text.replaceAll("b", "").length, 30)
  assert.deepEqual({ ...a.doc().count }, { alice: 29, bob: 29 })
})

story("a client that joins late gets 5,000 single-character changes", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const a = await typed(alice, 5_000)
  await alice.saved(a)
  const late = await world.client("late", relay)
  const found = await late.find(a.url)
  await converged([a, found])
  assert.equal(found.doc().text, a.doc().text)
  assert.equal(Automerge.getAllChanges(found.doc()).length, 5_001)
})

story("a missing document is unavailable, and appears when someone makes it", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const bob = await world.client("bob", relay)
  const { url, documentId } = freshDocument()
  const unavailable = await alice.repo
    .find(url, { allowableStates: ["unavailable"] })
    .catch(error => assert.fail(error))
  assert.equal(unavailable.state, "unavailable")
  await assert.rejects(alice.find(url), /unavailable/)

  const saved = Automerge.save(Automerge.from({ made: "later" }))
  bob.repo.import(saved, { docId: documentId })
  await until("the document appears at alice", () => unavailable.isReady())
  assert.deepEqual(unavailable.doc(), { made: "later" })
})

story("a missing document is answered within two seconds and stays subscribed", async world => {
  const relay = await world.relay()
  const { documentId } = freshDocument()
  const raw = await world.raw("raw", relay)
  const asked = performance.now()
  raw.subscribe(documentId).catch(() => {}) // it cannot succeed before the document exists
  await raw.next("doc-unavailable", documentId)
  const answered = performance.now() - asked
  assert.ok(answered < 2_000, `answered after ${answered} ms`)

  const bob = await world.client("bob", relay)
  const saved = Automerge.save(Automerge.from({ made: "later" }))
  const handle = bob.repo.import(saved, { docId: documentId })
  await bob.saved(handle)
  await until("the document is pushed", () => raw.doc(documentId).made)
  assert.equal(raw.of("doc-unavailable", documentId).length, 1)
})

story("forty editors at once converge", async world => {
  const relay = await world.relay()
  const names = Array.from({ length: 40 }, (_, index) => `editor-${index}`)
  const clients = await Promise.all(names.map(name => world.client(name, relay)))
  const first = clients[0].create({ lines: [] })
  await clients[0].saved(first)
  const handles = await Promise.all(clients.map(client => client.find(first.url)))
  for (let round = 0; round < 3; round++) {
    for (const [index, handle] of handles.entries()) {
      handle.change(doc => doc.lines.push(`${names[index]} ${round}`))
    }
    await turn()
  }
  await converged(handles, () => first.doc().lines.length === 120, 60_000)
  const wanted = names.flatMap(name => [0, 1, 2].map(round => `${name} ${round}`))
  assert.deepEqual([...first.doc().lines].sort(), wanted.sort())
}, { ms: 120_000 })

story("version 1.2.1 creates, finds and edits through the relay", async world => {
  const relay = await world.relay()
  const alice = await world.adopt(new Client1("alice", relay.url)).connected()
  const bob = await world.adopt(new Client1("bob", relay.url)).connected()
  const a = alice.create({ from: "alice" })
  const b = await bob.find(a.url)
  assert.equal(b.docSync().from, "alice")
  b.change(doc => (doc.from = "bob"))
  await until("alice sees bob's edit", () => a.docSync().from === "bob")
  a.change(doc => (doc.from = "alice again"))
  await until("bob sees alice's edit", () => b.docSync().from === "alice again")
})

story("version 1.2.1 and 2.5.6 edit one document, in both directions", async world => {
  const relay = await world.relay()
  const old = await world.adopt(new Client1("old", relay.url)).connected()
  const recent = await world.client("recent", relay)

  const byOld = old.create({ list: ["old"] })
  const atRecent = await recent.find(byOld.url)
  const byRecent = recent.create({ list: ["recent"] })
  const atOld = await old.find(byRecent.url)
  for (let round = 0; round < 20; round++) {
    byOld.change(doc => doc.list.push(`old ${round}`))
    atRecent.change(doc => doc.list.push(`recent ${round}`))
    byRecent.change(doc => doc.list.push(`recent ${round}`))
    atOld.change(doc => doc.list.push(`old ${round}`))
    await turn()
  }
  for (const [atOldClient, atNewClient] of [
    [byOld, atRecent],
    [atOld, byRecent],
  ]) {
    await until(
      "both versions converge",
      () =>
        atOldClient.docSync().list.length === 41 &&
        sameHeads(atOldClient.heads(), decodeHeads(atNewClient.heads()))
    )
    assert.deepEqual([...atOldClient.docSync().list], [...atNewClient.doc().list])
  }
})

story("version 1.2.1 gets a long document that 2.5.6 typed", async world => {
  const relay = await world.relay()
  const recent = await world.client("recent", relay)
  const handle = await typed(recent, 500)
  await recent.saved(handle)
  const old = await world.adopt(new Client1("old", relay.url)).connected()
  const found = await old.find(handle.url)
  await until("the old client has it all", () => found.docSync().text.length === 500)
  assert.equal(String(found.docSync().text), handle.doc().text)
})

story("a client that asks for it is told another client's heads", async world => {
  const relay = await world.relay()
  const member = name =>
    world.client(name, relay, { storage: new MemoryStorage(), gossip: true })
  const [alice, bob] = [await member("alice"), await member("bob")]
  const bobStorageId = await bob.repo.storageId()
  alice.repo.subscribeToRemotes([bobStorageId])
  const [a, b] = await alice.share({ step: 0 }, bob)
  for (const step of [1, 2]) {
    b.change(doc => (doc.step = step))
    await until(
      `alice learns that bob stands at step ${step}`,
      () => sameHeads(a.getSyncInfo(bobStorageId)?.lastHeads ?? [], b.heads()),
      { seen: () => a.getSyncInfo(bobStorageId) ?? "nothing" }
    )
  }
})

story("plain HTTP is answered", async world => {
  const relay = await world.relay()
  for (const path of ["/", "/healthz", "/readyz"]) {
    const answer = await fetch(relay.http + path)
    assert.equal(answer.status, 200, `GET ${path}`)
    assert.ok((await answer.text()).length > 0, `GET ${path} has a body`)
  }
})
