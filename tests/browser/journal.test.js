// What a page edited in its last moment, which only its journal has: the next host makes it, and so
// does the one that lives on, once, and as if the page had lived on. Without threads and browsers.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { load } from "./lib/bundle.js"
import { packageFolder } from "./lib/package.js"

const { DocHandle, Host, MemoryStorage, splice } = await load("pages/views.js")
const module = readFileSync(join(packageFolder(), "dist/core/reconverge_bg.wasm"))

const turn = () => new Promise(resolve => setImmediate(resolve))
const turns = async () => {
  for (let i = 0; i < 20; i++) await turn()
}

/** Entries under keys of strings, as IndexedDB has them. */
class Entries {
  kept = new Map()
  #has = (key, prefix) => prefix.every((part, i) => key[i] === part)

  async keys(prefix) {
    return [...this.kept.keys()].map(key => JSON.parse(key)).filter(key => this.#has(key, prefix))
  }

  async loadRange(prefix) {
    const keys = await this.keys(prefix)
    return keys.map(key => ({ key, data: structuredClone(this.kept.get(JSON.stringify(key))) }))
  }

  async commit(writes) {
    for (const { put, remove, data } of writes) {
      if (put) this.kept.set(JSON.stringify(put), structuredClone(data))
      else this.kept.delete(JSON.stringify(remove))
    }
  }
}

/** A page with a journal. What it posts is `out` until the host gets it. */
class Page {
  out = []
  #calls = new Map()
  #words = 0
  #port

  constructor(name, journal) {
    this.name = name
    this.journal = {
      put: entry => journal.commit([{ put: this.#key(entry.author, entry.edit.seq), data: entry }]),
      remove: (author, edits) => journal.commit(edits.map(seq => ({ remove: this.#key(author, seq) }))),
    }
    this.owner = { link: this, isConnected: false, release() {}, journal: this.journal }
  }

  #key = (author, seq) => [this.name, author, `${seq}`]

  attach(host) {
    this.out = []
    const hear = message => this.#port === port && this.#hear(message)
    const port = { post: message => queueMicrotask(() => hear(message)), onmessage: undefined, close() {} }
    this.#port = port
    this.end = host.attach(port, this.name)
    for (const { say } of this.handle?.resume() ?? []) say()
  }

  nextWord = () => ++this.#words
  post(message) {
    this.out.push(structuredClone(message))
  }

  speak() {
    for (const message of this.out.splice(0)) this.#port.onmessage(message)
  }

  call(name, args, { then = value => value } = {}) {
    return new Promise((resolve, reject) => {
      const call = this.nextWord()
      this.#calls.set(call, { then, resolve, reject })
      this.post({ type: "call", call, name, args })
    })
  }

  #hear(message) {
    if (message.type === "result") {
      const { then, resolve, reject } = this.#calls.get(message.call)
      if (message.failure) reject(new Error(message.failure.message))
      else resolve(then(message.value))
    } else if (message.document && message.document === this.handle?.documentId) this.handle.handle(message)
  }

  async open(name, args) {
    const then = opened => (this.handle = new DocHandle(this.owner, opened))
    const called = this.call(name, args, { then })
    this.speak()
    return called
  }

  /** The tab goes, or its host: nothing that was said on the way arrives. */
  go() {
    this.#port = undefined
    this.out = []
  }
}

class World {
  storage = new MemoryStorage()
  journal = new Entries()
  #pages = []
  #ends = []

  constructor() {
    this.storage.close = () => {}
  }

  async host() {
    const options = { name: "test", relays: [], peerId: "test", keeps: true }
    let isDead = false
    const storage = new Proxy(this.storage, {
      get: (target, name) =>
        name === "commit" && isDead ? async () => {} : typeof target[name] === "function" ? target[name].bind(target) : target[name],
    })
    const host = await Host.start({ options, storage, journal: this.journal, webSocket: () => {}, module })
    this.#ends.push(() => {
      isDead = true
      return host.close()
    })
    return host
  }

  /** The host ends without a word. */
  async die() {
    for (const page of this.#pages) page.go()
    const { journal } = this
    // It writes nothing more.
    const kept = new Map(journal.kept)
    for (const end of this.#ends.splice(0)) await end()
    await turns()
    journal.kept = kept
  }

  page(name) {
    const page = new Page(name, this.journal)
    this.#pages.push(page)
    return page
  }
}

const BEGIN = [
  ["put", "_root", "text", { make: "text", id: "~1", text: "hello" }],
  ["put", "_root", "list", { make: "list", id: "~2" }],
]

let world

function scenario(name, body) {
  test(name, async () => {
    world = new World()
    await body()
    await world.die()
  })
}

async function begin() {
  const host = await world.host()
  const [ann, bob] = [world.page("ann"), world.page("bob")]
  ann.attach(host)
  await ann.open("create", [BEGIN, 0])
  await turns()
  bob.attach(host)
  await bob.open("open", [ann.handle.documentId])
  await turns()
  return { host, ann, bob }
}

const type = (page, at, text) => page.handle.change(doc => splice(doc, ["text"], at, 0, text))

/** What a page of a next host finds. */
async function found(host, document) {
  const page = world.page("reader")
  page.attach(host)
  const handle = await page.open("open", [document])
  return handle.doc()
}

const isGone = () => false

scenario("the next host makes what a page never said, where the page made it", async () => {
  const { ann, bob } = await begin()
  type(bob, 5, " bob")
  bob.speak()
  await turns()
  type(ann, 9, "!")
  type(ann, 0, "> ")
  ann.go()
  bob.go()
  await world.die()
  const host = await world.host()
  await host.takeUp(isGone)
  const { documentId } = ann.handle
  assert.equal((await found(host, documentId)).text, "> hello bob!")
  await turns()
  assert.equal(world.journal.kept.size, 0)
})

scenario("edits that were stored, in part, when all went are made once, and know what they made", async () => {
  const { ann } = await begin()
  ann.handle.change(doc => void doc.list.push({ by: "ann" }))
  ann.speak()
  // Nobody heard of this one, of an object that has no other name yet.
  ann.handle.change(doc => void (doc.list[0].by = "Ann"))
  ann.go()
  await turns()
  await world.die()
  for (let hosts = 1; hosts <= 3; hosts++) {
    const host = await world.host()
    await host.takeUp(isGone)
    const shown = await found(host, ann.handle.documentId)
    assert.deepEqual(shown.list, [{ by: "Ann" }])
    await turns()
    await world.die()
  }
  assert.equal(world.journal.kept.size, 0)
})

scenario("what was stored is not made again, however late the journal is emptied", async () => {
  const { ann } = await begin()
  type(ann, 0, "once ")
  const kept = new Map(world.journal.kept)
  assert.equal(kept.size, 1)
  ann.speak()
  await turns()
  assert.equal(world.journal.kept.size, 0)
  for (let hosts = 1; hosts <= 3; hosts++) {
    world.journal.kept = new Map(kept)
    await world.die()
    const host = await world.host()
    await host.takeUp(isGone)
    assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
    await turns()
    assert.equal(world.journal.kept.size, 0)
  }
})

scenario("what was stored longer ago than anybody asks for is not made again", async () => {
  const { ann } = await begin()
  type(ann, 0, "once ")
  const kept = new Map(world.journal.kept)
  ann.speak()
  await turns()
  world.journal.kept = kept
  await world.die()
  const { now } = Date
  try {
    Date.now = () => now() + 7 * 24 * 60 * 60 * 1000
    const host = await world.host()
    await host.takeUp(isGone)
    assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
  } finally {
    Date.now = now
  }
})

scenario("the host of another tab makes what a page that is gone did not say, as if it had", async () => {
  const { host, ann, bob } = await begin()
  type(ann, 0, "said ")
  ann.speak()
  type(bob, 5, " bob")
  bob.speak()
  // Ann has not seen what bob typed.
  type(ann, 5, "unsaid ")
  ann.go()
  ann.end()
  await turns()
  bob.speak()
  await turns()
  assert.equal(bob.handle.doc().text, "said unsaid hello bob")
  assert.equal(world.journal.kept.size, 0)
  await world.die()
  const next = await world.host()
  await next.takeUp(isGone)
  assert.equal((await found(next, ann.handle.documentId)).text, "said unsaid hello bob")
})

scenario("a page that lives tells the next host itself", async () => {
  const { ann, bob } = await begin()
  type(ann, 0, "ann ")
  type(bob, 5, " bob")
  bob.go()
  await world.die()
  const host = await world.host()
  const living = await host.takeUp(name => name === "ann")
  assert.deepEqual(living, ["ann"])
  ann.attach(host)
  ann.speak()
  await turns()
  assert.equal(ann.handle.doc().text, "ann hello bob")
  assert.equal(world.journal.kept.size, 0)
  // Or it goes before it did.
  type(ann, 0, "late ")
  ann.go()
  ann.end()
  await turns()
  assert.equal((await found(host, ann.handle.documentId)).text, "late ann hello bob")
})

scenario("edits behind a gap, and of what is deleted, are not made", async () => {
  const { host, ann, bob } = await begin()
  for (const char of "abc") type(ann, ann.handle.doc().text.length, char)
  const second = [...world.journal.kept.keys()].find(key => JSON.parse(key)[2] === "2")
  world.journal.kept.delete(second)
  ann.go()
  ann.end()
  await turns()
  assert.equal(bob.handle.doc().text, "helloa")
  const { documentId } = bob.handle
  const deleted = bob.call("delete", [documentId])
  bob.speak()
  await deleted
  // Of the page that is told of it too late.
  const entry = { type: "edit", document: documentId, author: "eve", seen: 0, named: 0 }
  const edit = { seq: 1, operations: [["put", "_root", "eve", 1]], time: Date.now() / 1000 }
  await world.journal.commit([
    { put: ["eve", "eve", "1"], data: { ...entry, edit, base: { seq: 0, heads: [], behind: [] } } },
  ])
  await world.die()
  const next = await world.host()
  await next.takeUp(isGone)
  await assert.rejects(found(next, documentId), /unavailable|not/)
})

scenario("a page that was kept for going back, and comes back after long, makes nothing twice", async () => {
  const { host, ann, bob } = await begin()
  type(ann, 0, "once ")
  ann.go()
  ann.end()
  await turns()
  assert.equal(bob.handle.doc().text, "once hello")
  const { now } = Date
  try {
    Date.now = () => now() + 60 * 60 * 1000
    // Another page lets go of the document, which is when old notes are thrown away.
    assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
    bob.post({ type: "release", document: bob.handle.documentId })
    bob.speak()
    await turns()
    ann.attach(host)
    ann.speak()
    await turns()
    assert.equal(ann.handle.doc().text, "once hello")
    assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
  } finally {
    Date.now = now
  }
})
