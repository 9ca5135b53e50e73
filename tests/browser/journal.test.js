// What a page edited in its last moment, which only its journal has: the next host makes it, and so
// does the one that lives on, once, and as if the page had lived on. Without threads and browsers.

import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { load } from "./lib/bundle.js"
import { packageFolder } from "./lib/package.js"
import { random } from "./lib/random.js"

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
    this.owner = { link: this, isConnected: false, release() {}, statusChanged() {}, journal: this.journal }
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

  /** The host gets the next message, or all. */
  hears(messages = this.out.length) {
    for (const message of this.out.splice(0, messages)) this.#port.onmessage(message)
  }

  speak() {
    this.hears()
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
    } else if (message.type === "problem") this.onproblem?.(message)
    else if (message.document && message.document === this.handle?.documentId) this.handle.handle(message)
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
  /** What the storage does instead, by the names of its methods. */
  instead = {}
  journal = new Entries()
  #pages = []
  #ends = []

  constructor() {
    this.storage.close = () => {}
  }

  async host(avoid = []) {
    const options = { name: "test", relays: [], peerId: "test", keeps: true, avoid }
    let isDead = false
    const storage = new Proxy(this.storage, {
      get: (target, name) => {
        if (name === "commit" && isDead) return async () => {}
        const value = this.instead[name] ?? target[name]
        return typeof value === "function" ? value.bind(target) : value
      },
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
  await ann.open("create", [randomUUID(), BEGIN, 0])
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
  await speakAndKeep(ann)
  await world.die()
  await later(7 * 24, async () => {
    const host = await world.host()
    await host.takeUp(isGone)
    assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
  })
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
  await later(1, async () => {
    // Another page lets go of the document, which is when old notes are thrown away.
    assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
    bob.post({ type: "release", document: bob.handle.documentId })
    bob.speak()
    await turns()
    await comesBack(ann, host)
    assert.equal(ann.handle.doc().text, "once hello")
    assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
  })
})

async function later(hours, body) {
  const { now } = Date
  try {
    Date.now = () => now() + hours * 60 * 60 * 1000
    await body()
  } finally {
    Date.now = now
  }
}

/** Ann's edit is in her journal only, and the next host takes up what is left of who is not alive. */
async function beginUnsaid(isAlive) {
  const { ann, bob } = await begin()
  type(ann, 0, "once ")
  ann.go()
  bob.go()
  await world.die()
  const host = await world.host()
  await host.takeUp(isAlive)
  return { host, ann }
}

/** The browser keeps a page as it is, or it is closed. */
async function leaves(page) {
  page.go()
  page.end()
  await turns()
}

async function comesBack(page, host) {
  page.attach(host)
  for (let i = 0; i < 2; i++) {
    page.speak()
    await turns()
  }
}

/** Commits wait for what is given. */
function holdCommits() {
  let release
  const released = new Promise(resolve => (release = resolve))
  world.instead.commit = async function (writes) {
    await released
    return this.commit(writes)
  }
  return () => {
    delete world.instead.commit
    release()
  }
}

const fails = async () => {
  throw new Error("on purpose")
}

/** What was removed from the journal is still there: pages remove it with their next edit. */
async function speakAndKeep(page) {
  const kept = new Map(world.journal.kept)
  page.speak()
  await turns()
  world.journal.kept = kept
}

scenario("a page that comes back while its edits cannot be stored makes nothing twice", async () => {
  const { host, ann } = await begin()
  world.instead.commit = fails
  type(ann, 0, "once ")
  await leaves(ann)
  await comesBack(ann, host)
  delete world.instead.commit
  assert.equal(ann.handle.doc().text, "once hello")
  assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
})

scenario("nor while they are being stored", async () => {
  const { host, ann, bob } = await begin()
  const release = holdCommits()
  type(bob, 5, " bob")
  bob.speak()
  await turns()
  type(ann, 0, "once ")
  await leaves(ann)
  await comesBack(ann, host)
  release()
  await turns()
  await comesBack(ann, host)
  assert.equal(ann.handle.doc().text, "once hello bob")
  assert.equal((await found(host, ann.handle.documentId)).text, "once hello bob")
})

scenario("nor while the next host takes them up", async () => {
  const { host, ann } = await beginUnsaid(isGone)
  await comesBack(ann, host)
  assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
})

scenario("a page says hello twice", async () => {
  const { host, ann } = await beginUnsaid(name => name === "ann")
  ann.attach(host)
  ann.end()
  await comesBack(ann, host)
  assert.equal((await found(host, ann.handle.documentId)).text, "once hello")
})

scenario("a page goes while it waits for an answer, and its last edits are on their way to storage", async () => {
  const { ann, bob } = await begin()
  ann.handle.whenSynced({ level: "durable" }).catch(() => {})
  ann.speak()
  const release = holdCommits()
  for (const [at, char] of [...'12'].entries()) {
    type(ann, at, char)
    ann.speak()
    await turns()
  }
  await leaves(ann)
  release()
  await turns()
  bob.speak()
  await turns()
  assert.equal(bob.handle.doc().text, "12hello")
})

scenario("an edit of last week is not lost because storage fails once", async () => {
  const { ann } = await begin()
  type(ann, 0, "once ")
  ann.go()
  await world.die()
  await later(7 * 24, async () => {
    const host = await world.host()
    world.instead.keys = fails
    await host.takeUp(isGone)
    await turns()
    delete world.instead.keys
    await world.die()
    const next = await world.host()
    await next.takeUp(isGone)
    assert.equal((await found(next, ann.handle.documentId)).text, "once hello")
  })
})

scenario("a document that was deleted, and is found again at a relay, has no edit twice", async () => {
  const { ann, bob } = await begin()
  type(ann, 0, "once ")
  await speakAndKeep(ann)
  const { documentId } = ann.handle
  const atRelay = await world.storage.loadRange(["documents", documentId])
  const deleted = bob.call("delete", [documentId])
  bob.speak()
  await deleted
  await turns()
  await world.die()
  for (let hosts = 0; hosts < 2; hosts++) {
    const host = await world.host()
    await host.takeUp(isGone)
    await turns()
    if (hosts === 0) await world.storage.commit(atRelay.map(({ key, data }) => ({ put: key, data })))
    assert.equal((await found(host, documentId)).text, "once hello")
    await world.die()
  }
})

scenario("a journal that cannot be read when its page goes is read by the next host", async () => {
  const { host, ann } = await begin()
  type(ann, 0, "once ")
  await speakAndKeep(ann)
  const { documentId } = ann.handle
  world.journal.loadRange = fails
  await leaves(ann)
  delete world.journal.loadRange
  await later(1, async () => {
    const other = world.page("other")
    other.attach(host)
    await other.open("open", [documentId])
    other.handle.change(doc => void (doc.other = true))
    other.post({ type: "release", document: documentId })
    other.speak()
    await turns()
  })
  await world.die()
  const next = await world.host()
  await next.takeUp(isGone)
  assert.equal((await found(next, documentId)).text, "once hello")
})

for (const name of ["create", "import", "clone"]) {
  scenario(`an edit of what a page was just given by ${name} is kept`, async () => {
    const host = await world.host()
    const ann = world.page("ann")
    ann.attach(host)
    await ann.open("create", [randomUUID(), BEGIN, 0])
    const asked = ann.call("export", [ann.handle.documentId])
    ann.speak()
    const saved = await asked
    const release = holdCommits()
    const given = { create: [BEGIN], import: [saved], clone: [ann.handle.documentId] }[name]
    let isOpen = false
    const opened = ann.open(name, [randomUUID(), ...given, 0]).then(() => (isOpen = true))
    await turns()
    assert.equal(isOpen, false, "it is stored first")
    release()
    await opened
    type(ann, 0, "x")
    ann.go()
    await world.die()
    const next = await world.host()
    await next.takeUp(isGone)
    assert.equal((await found(next, ann.handle.documentId)).text, "xhello")
  })
}

for (const name of ["create", "import", "clone"]) {
  scenario(`what is asked for by ${name} is made once, though the host ends before it answers`, async () => {
    const { ann } = await begin()
    const exported = ann.call("export", [ann.handle.documentId])
    ann.speak()
    const saved = await exported
    const given = { create: [BEGIN], import: [saved], clone: [ann.handle.documentId] }[name]
    const asked = [randomUUID(), ...given, 0]
    ann.call(name, asked)
    ann.speak()
    while ((await documents()).size < 2) await turn()
    ann.go()
    await world.die()
    const stored = await world.storage.loadRange(["documents"])
    const next = await world.host()
    const page = world.page("ann again")
    page.attach(next)
    if (name === "clone") await page.open("open", [ann.handle.documentId])
    await page.open(name, asked)
    assert.equal(page.handle.doc().text, "hello")
    assert.deepEqual(await world.storage.loadRange(["documents"]), stored)
  })
}

const documents = async () => new Set((await world.storage.keys(["documents"])).map(key => key[1]))

scenario("edits at which the engine still fails after a while are set aside, and their document is of use again", async () => {
  const { ann } = await begin()
  const { documentId } = ann.handle
  type(ann, 0, "bad ")
  ann.go()
  await world.die()
  const problems = []
  // The host that takes the edits up fails at them, and is followed by one that avoids the document.
  for (const minutes of [0, 9, 11]) {
    assert.deepEqual(problems, [])
    await later(minutes / 60, async () => {
      const host = await world.host([documentId])
      const page = world.page(`page after ${minutes} minutes`)
      page.attach(host)
      page.onproblem = ({ message }) => problems.push(message)
      await host.takeUp(isGone)
      await turns()
      await world.die()
    })
  }
  assert.match(problems.join(), new RegExp(`failed on edits of ${documentId} again`))
  const host = await world.host()
  await host.takeUp(isGone)
  assert.equal((await found(host, documentId)).text, "hello")
  await turns()
  const kept = [...world.journal.kept].map(([key, entry]) => [JSON.parse(key), entry.edit.operations])
  assert.equal(kept.length, 1)
  assert.deepEqual(kept[0][0].slice(0, 2), ["aside", "ann"])
  assert.equal(kept[0][1][0].at(-1), "bad ")
})

scenario("edits that were avoided once are made by the next page", async () => {
  const { ann } = await begin()
  const { documentId } = ann.handle
  type(ann, 0, "good ")
  ann.go()
  await world.die()
  const first = await world.host([documentId])
  await first.takeUp(isGone)
  await turns()
  await world.die()
  const second = await world.host()
  await second.takeUp(isGone)
  assert.equal((await found(second, documentId)).text, "good hello")
  await turns()
  assert.equal(world.journal.kept.size, 0)
})

scenario("an edit whose entry cannot be removed is made once, though its page lets go of the document", async () => {
  const { host, ann } = await begin()
  const { documentId } = ann.handle
  const other = world.page("other")
  other.attach(host)
  await other.open("create", [randomUUID(), BEGIN, 0])
  type(ann, 0, "once ")
  await speakAndKeep(ann)
  ann.post({ type: "release", document: documentId })
  ann.speak()
  await later(1 / 6, async () => {
    other.post({ type: "release", document: other.handle.documentId })
    other.speak()
    await turns()
    await world.die()
    const next = await world.host()
    await next.takeUp(isGone)
    assert.equal((await found(next, documentId)).text, "once hello")
  })
})

scenario("an edit of a page that is gone which cannot be made is told to those that are there", async () => {
  const { host, ann, bob } = await begin()
  const problems = []
  bob.onproblem = ({ message }) => problems.push(message)
  type(ann, 0, "x")
  const [[key, entry]] = world.journal.kept
  entry.edit.operations[0][1] = "no object"
  world.journal.kept.set(key, entry)
  ann.go()
  ann.end()
  await turns()
  assert.match(problems.join(), new RegExp(`an edit of ${ann.handle.documentId} by a page that is gone cannot be made`))
  assert.equal((await found(host, ann.handle.documentId)).text, "hello")
})

scenario("who opens a document does not wait for what is being made in another", async () => {
  const { ann } = await begin()
  const { documentId } = ann.handle
  const other = world.page("other")
  other.attach(await world.host())
  await other.open("create", [randomUUID(), BEGIN, 0])
  type(ann, 0, "late ")
  ann.go()
  await world.die()
  let read = () => {}
  const reading = new Promise(resolve => (read = resolve))
  world.instead.loadRange = async function (prefix) {
    if (prefix[1] === documentId) await reading
    return this.loadRange(prefix)
  }
  const host = await world.host()
  host.takeUp(isGone)
  assert.equal((await found(host, other.handle.documentId)).text, "hello")
  const shown = found(host, documentId)
  await turns()
  read()
  assert.equal((await shown).text, "late hello")
})

scenario("what a page edited in a document that is deleted is not kept", async () => {
  const { ann, bob } = await begin()
  type(ann, 0, "gone ")
  assert.equal(world.journal.kept.size, 1)
  bob.call("delete", [bob.handle.documentId])
  bob.speak()
  await turns()
  assert.equal(world.journal.kept.size, 0)
})

scenario("a page that edits on while the connection is lost says that it is offline", async () => {
  const { ann } = await begin()
  const { handle } = ann
  const says = (state, processed) =>
    handle.handle({ type: "status", document: handle.documentId, status: { state }, processed })
  says("saved", 0)
  type(ann, 0, "x")
  assert.equal(handle.status.state, "offline")
  says("saving", 1)
  type(ann, 0, "y")
  // The host has not heard of the second edit yet, and says no more of it: it is as offline as the first.
  says("offline", 1)
  assert.equal(handle.status.state, "offline")
  says("saved", 1)
  assert.equal(handle.status.state, "offline")
  says("saved", 2)
  assert.equal(handle.status.state, "saved")
})

/**
 * Two pages that edit, are kept by the browser and come back, hosts that end, calls that wait and a
 * storage that takes its time, in any order: every edit is made once, in the order of its page.
 */
async function anything(seed) {
  const below = random(seed)
  let [slowness, queue] = [0, Promise.resolve()]
  const slowly = work => {
    const wait = async () => {
      for (let turns = slowness; turns > 0; turns--) await turn()
    }
    return (queue = queue.then(wait).then(work, work))
  }
  for (const name of ["load", "keys", "loadRange", "commit"]) {
    world.instead[name] = function (argument) {
      return slowly(() => this[name](argument))
    }
  }
  let { host, ann, bob } = await begin()
  const people = [ann, bob].map(page => ({ page, isHere: true, said: [] }))
  const done = []
  const someTurns = async () => {
    for (let n = below(6); n > 0; n--) await turn()
  }
  for (let step = 0; step < 40; step++) {
    const person = people[below(2)]
    const { page, said } = person
    slowness = below(4) * below(4)
    const what = below(10)
    if (what < 4 && person.isHere) {
      const id = `${page.name} ${step}`
      said.push(id)
      page.handle.change(doc => {
        doc.list.push({ id })
        splice(doc, ["text"], below(doc.text.length + 1), 0, String.fromCharCode(0x4e00 + step))
      })
      done.push(`${id} is edited`)
    } else if (what < 7 && person.isHere) {
      page.hears(below(5))
      done.push(`${page.name} is heard`)
    } else if (what === 7) {
      if (person.isHere) {
        page.go()
        page.end()
      } else {
        page.attach(host)
      }
      person.isHere = !person.isHere
      done.push(`${page.name} ${person.isHere ? "comes back" : "leaves"}`)
    } else if (what === 8 && person.isHere) {
      page.handle.whenSynced({ level: below(2) === 0 ? "local" : "durable" }).catch(() => {})
      done.push(`${page.name} waits`)
    } else if (what === 9 && below(2) === 0) {
      await world.die()
      host = await world.host()
      const here = people.filter(({ isHere }) => isHere).map(({ page }) => page)
      await host.takeUp(name => here.some(page => page.name === name))
      for (const page of here) page.attach(host)
      done.push("the host ends")
    }
    await someTurns()
  }
  slowness = 0
  for (const { page, isHere } of people) if (!isHere) page.attach(host)
  for (let i = 0; i < 12; i++) {
    for (const { page } of people) page.speak()
    await turns()
  }
  const shown = await found(host, ann.handle.documentId)
  const because = `seed ${seed}: ${done.join("; ")}`
  for (const { page, said } of people) {
    const made = shown.list.map(({ id }) => id).filter(id => id.startsWith(page.name))
    assert.deepEqual(made, said, because)
    assert.deepEqual(page.handle.doc(), shown, because)
  }
  const characters = [...shown.text].filter(char => char >= "\u4e00")
  assert.equal(new Set(characters).size, characters.length, because)
}

const [first, last] = (process.env.JOURNAL_SEEDS ?? "1-150").split("-").map(Number)
scenario(`anything may happen, in any order (JOURNAL_SEEDS=${first}-${last})`, async () => {
  for (let seed = first; seed <= last; seed++) {
    world = new World()
    await anything(seed)
    await world.die()
  }
})
