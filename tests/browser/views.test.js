// Pages that edit one document at once: whatever is on its way between them and their host, and
// whenever that dies, all end with the same, and every edit is made once.

import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { load } from "./lib/bundle.js"
import { packageFolder } from "./lib/package.js"
import { random } from "./lib/random.js"

const { Counter, DocHandle, Host, mark, MemoryStorage, Repo, splice, usePlatform } = await load("pages/views.js")
const module = readFileSync(join(packageFolder(), "dist/core/reconverge_bg.wasm"))

const ROUNDS = Number(process.env.RECONVERGE_ROUNDS ?? 20)
const STEPS = 150

/** Lets promises and microtasks go on, but no message between pages and hosts. */
const turn = () => new Promise(resolve => setImmediate(resolve))

/** What one host has of a storage that outlives it: commits take as long as the test says. */
class Held {
  #storage
  #commits = []
  #isDead = false

  constructor(storage) {
    this.#storage = storage
    for (const name of ["load", "loadRange", "keys", "save", "remove"]) {
      this[name] = (...args) => storage[name](...args)
    }
  }

  commit(writes) {
    if (this.#isDead) return Promise.resolve()
    return new Promise(resolve => this.#commits.push({ writes, resolve }))
  }

  get isWaitedFor() {
    return this.#commits.length > 0
  }

  /** Carries out the next commit. */
  async proceed() {
    const next = this.#commits.shift()
    if (!next) return
    await this.#storage.commit(next.writes)
    next.resolve()
  }

  /** From now on nothing is stored, but maybe the next commit, of which nobody hears in time. */
  async die({ commits = false } = {}) {
    this.#isDead = true
    const [next] = this.#commits
    if (next && commits) await this.#storage.commit(next.writes)
    for (const { resolve } of this.#commits.splice(0)) resolve()
  }

  close() {}
}

/** A page, with what is on its way to its host and back. */
class Page {
  out = []
  into = []
  errors = []
  heard = 0
  #port
  #calls = new Map()
  #words = 0

  /** What is on its way is lost. */
  leave() {
    this.out = []
    this.into = []
    this.#port = undefined
  }

  attach(host) {
    this.leave()
    const port = {
      post: message => this.#port === port && this.into.push(structuredClone(message)) && this.heard++,
      onmessage: undefined,
      close: () => {},
    }
    this.#port = port
    this.close = host.attach(port)
    this.post({ type: "hello", wiped: undefined })
    const calls = [...this.#calls].filter(([, { name }]) => name !== "resume")
    this.#calls = new Map(calls)
    const said = calls.map(([word, { name, args }]) => ({
      word,
      say: () => this.post({ type: "call", call: word, name, args }),
    }))
    const edits = this.handle?.resume(calls[0]?.[0]) ?? []
    for (const { say } of [...said, ...edits].sort((a, b) => a.word - b.word)) say()
  }

  get owner() {
    return { link: this, isConnected: false, release() {}, statusChanged() {} }
  }

  post(message) {
    this.out.push(structuredClone(message))
  }

  nextWord() {
    return ++this.#words
  }

  call(name, args, { then = value => value } = {}) {
    return new Promise((resolve, reject) => {
      const call = this.nextWord()
      this.#calls.set(call, { name, args, then, resolve, reject })
      this.post({ type: "call", call, name, args })
    })
  }

  /** The host gets the next message. */
  speak() {
    const message = this.out.shift()
    if (message) this.#port.onmessage(message)
  }

  speakAll() {
    while (this.out.length > 0) this.speak()
  }

  /** The page gets the next message. */
  hear() {
    const message = this.into.shift()
    if (message?.type === "result") {
      const { then, resolve, reject } = this.#calls.get(message.call)
      this.#calls.delete(message.call)
      if (message.failure) reject(new Error(message.failure.message))
      else resolve(then(message.value))
    } else if (message && message.document === this.handle?.documentId) {
      this.handle?.handle(message)
    } else if (message?.type === "update") {
      // Of a document that it has open and does not show; the host waits for that to answer.
      this.post({ type: "seen", document: message.document, update: message.update })
    }
  }

  open(name, args) {
    const then = opened => {
      this.handle = new DocHandle(this.owner, opened)
      this.handle.on("error", error => this.errors.push(error))
      return this.handle
    }
    return this.call(name, args, { then })
  }
}

/** A host, its storage and three pages that have a document open. */
class World {
  #storage = new MemoryStorage()
  pages = [new Page(), new Page(), new Page()]
  elsewhere = new Page()

  get #everyone() {
    return [...this.pages, this.elsewhere]
  }

  async start(operations) {
    await this.#startHost()
    const [first, ...others] = this.pages
    const created = first.open("create", [randomUUID(), operations, 0])
    await this.settle()
    const { documentId } = await created
    this.documentId = documentId
    const cloned = this.elsewhere.open("clone", [randomUUID(), documentId, 0])
    await this.settle([this.elsewhere])
    await cloned
    const opened = others.map(page => page.open("open", [documentId]))
    await this.settle()
    await Promise.all(opened)
    return this
  }

  async #startHost() {
    this.held = new Held(this.#storage)
    const options = { name: "test", relays: [], peerId: "test", keeps: false }
    const starting = Host.start({ options, storage: this.held, webSocket: () => {}, module })
    let isUp = false
    starting.then(() => (isUp = true))
    while (!isUp) {
      await this.held.proceed()
      await turn()
    }
    this.host = await starting
    for (const page of this.#everyone) page.attach(this.host)
  }

  /** The host ends without a word, maybe after its storage carried out one more commit. */
  async die({ commits }) {
    const { held, host } = this
    for (const page of this.#everyone) page.leave()
    await held.die({ commits })
    await host.close()
    await this.#startHost()
  }

  /** A copy from the beginning is edited and merged: what there is may hide that. */
  async editElsewhere(fn) {
    const { elsewhere, documentId } = this
    elsewhere.handle.change(fn)
    elsewhere.call("open", [documentId])
    const merged = elsewhere.call("merge", [documentId, elsewhere.handle.documentId])
    let isAnswered = false
    const answered = () => (isAnswered = true)
    merged.then(answered, answered)
    while (!isAnswered) {
      elsewhere.speak()
      await turn()
      // What was merged is told when it is stored.
      await this.held.proceed()
      elsewhere.hear()
    }
    elsewhere.post({ type: "release", document: documentId })
    elsewhere.speak()
    await merged
  }

  async settle(pages = this.pages) {
    for (let quiet = 0; quiet < 5; quiet++) {
      await turn()
      if (this.held.isWaitedFor) quiet = 0
      await this.held.proceed()
      for (const page of pages) {
        if (page.out.length + page.into.length > 0) quiet = 0
        page.speak()
        page.hear()
      }
    }
  }

  /** What a page would find that opens now, if all others were gone. */
  async stored() {
    const storage = new MemoryStorage()
    await storage.commit((await this.#storage.loadRange([])).map(({ key, data }) => ({ put: key, data })))
    const options = { name: "test", relays: [], peerId: "reader", keeps: false }
    const host = await Host.start({ options, storage, webSocket: () => {}, module })
    const reader = new Page()
    reader.attach(host)
    const read = reader.open("open", [this.documentId])
    reader.speakAll()
    for (let turns = 0; turns < 5; turns++) await turn()
    while (reader.into.length > 0) reader.hear()
    const shown = (await read).doc()
    await host.close()
    return shown
  }

  /** What there is, when nothing is on its way; all pages must show it. */
  async end() {
    await this.settle()
    const reader = new Page()
    reader.attach(this.host)
    const read = reader.open("open", [this.documentId])
    const heads = Promise.all(this.pages.map(page => page.handle.heads()))
    await this.settle([reader, ...this.pages])
    const there = (await read).doc()
    const ofReader = reader.handle.heads()
    await this.settle([reader])
    const thereHeads = await ofReader
    for (const ofPage of await heads) assert.deepEqual(ofPage, thereHeads)
    await this.held.die()
    await this.host.close()
    for (const page of this.pages) {
      // Whoever edits what others removed is told so.
      assert.deepEqual(page.errors.filter(error => error.code !== "removed"), [])
      assert.deepEqual(page.handle.doc(), there)
    }
    return there
  }
}

const BEGIN = [
  ["put", "_root", "text", { make: "text", id: "~1", text: "hello world" }],
  ["put", "_root", "list", { make: "list", id: "~2" }],
  ["insert", "~2", 0, [1, 2, 3]],
  ["put", "_root", "map", { make: "map", id: "~3" }],
  ["put", "_root", "count", { counter: 0 }],
]
const BEGIN_WITH_NOTE = [...BEGIN, ["put", "_root", "note", { make: "text", id: "~4", text: "note" }]]

function editList(dice, list) {
  if (list.length === 0 || dice(3) === 0) return void list.splice(dice(list.length + 1), 0, dice(100), [dice(100)])
  const at = dice(list.length)
  const what = dice(3)
  if (what === 0) list.splice(at)
  else if (what === 1) list[at] = [dice(100)]
  else if (Array.isArray(list[at])) list[at].push(dice(100))
}

/** One edit; text only, where every character is counted. */
function edit(dice, page, mark, onlyText) {
  page.handle.change(doc => {
    const what = onlyText ? 0 : dice(13)
    if (what <= 4) {
      const { length } = doc.text
      const at = dice(length + 1)
      const deleted = !onlyText && dice(3) === 0 ? dice(Math.min(4, length - at + 1)) : 0
      return splice(doc, ["text"], at, deleted, mark)
    }
    const { list, map } = doc
    const key = `key ${dice(3)}`
    const at = dice(list.length)
    if (what === 5) return void list.splice(dice(list.length + 1), 0, dice(100), { made: mark })
    if (what === 6 && list.length > 0) return void list.splice(at, 1 + dice(2))
    if (what === 7 && list.length > 0) return void (list[at] = dice(2) ? dice(100) : [mark])
    if (what === 8) map[key] = [dice(100), new Date(dice(100)), 2n ** 60n, Uint8Array.of(dice(9)), { made: mark }, [1, 2]][dice(6)]
    if (what === 9) doc.count.increment(1 + dice(5))
    if (what === 10) delete map[key]
    if (what === 11) for (const inner of Object.values(map)) if (inner.made) inner.made += mark
    if (what === 12) for (const inner of Object.values(map)) if (Array.isArray(inner)) editList(dice, inner)
  })
}

const editElsewhere = (dice, world) =>
  world.editElsewhere(doc => {
    if (dice(2)) doc.map[`key ${dice(3)}`] = dice(100)
    else if (dice(2)) doc.count.increment(dice(3) - 1)
    else doc.list[dice(3)] = dice(100)
  })

/** An edit adds a character that no other one has. */
const markOf = number => String.fromCodePoint(0x4e00 + number)

async function round(seed, { onlyText, dies }) {
  const dice = random(seed)
  const world = await new World().start(BEGIN)
  const { pages } = world
  const marks = []
  const synced = []
  for (let step = 0; step < STEPS; step++) {
    if (onlyText && synced.length > 0) {
      const { text } = await world.stored()
      for (const mark of synced.splice(0)) assert.ok(text.includes(mark), "what is synced is stored")
    }
    const page = pages[dice(pages.length)]
    const what = dice(10)
    if (what < 3) page.speak()
    else if (what < 6) page.hear()
    else if (what < 7) await turn()
    else if (what < 8) await world.held.proceed()
    else if (dies && dice(30) === 0) await world.die({ commits: dice(2) === 1 })
    else if (!onlyText && dice(10) === 0) await editElsewhere(dice, world)
    else {
      const mark = markOf(marks.length)
      marks.push(mark)
      edit(dice, page, mark, onlyText)
      if (dice(4) === 0) page.handle.whenSynced({ level: "local" }).then(() => synced.push(mark))
    }
  }
  if (!onlyText && dice(2)) {
    await world.settle()
    await editElsewhere(dice, world)
  }
  const there = await world.end()
  if (onlyText) {
    const found = [...there.text].filter(char => char >= markOf(0)).sort()
    assert.deepEqual(found, marks, "every edit once")
    assert.equal(there.text.replace(/[\u4e00-\u9fff]/g, ""), "hello world")
  }
}

for (const [name, options] of [
  ["text", { onlyText: true, dies: false }],
  ["text, and the host dies", { onlyText: true, dies: true }],
  ["all that a document holds", { onlyText: false, dies: false }],
  ["all that a document holds, and the host dies", { onlyText: false, dies: true }],
]) {
  test(`three pages edit at once: ${name}`, async t => {
    const first = Number(process.env.RECONVERGE_SEED ?? Math.floor(Math.random() * 2 ** 32))
    for (let i = 0; i < ROUNDS; i++) {
      await round(first + i, options).catch(error => {
        t.diagnostic(`RECONVERGE_SEED=${first + i} RECONVERGE_ROUNDS=1 repeats it`)
        throw error
      })
    }
  })
}

const type = (page, at, text) => page.handle.change(doc => splice(doc, ["text"], at, 0, text))

test("a page that edits nothing more hears of others from the next host", async () => {
  const world = await new World().start(BEGIN)
  const [ann, bob] = world.pages
  type(ann, 0, "ann ")
  await world.settle()
  await world.die({ commits: false })
  await world.settle()
  type(bob, 4, "bob ")
  assert.equal((await world.end()).text, "ann bob hello world")
})

test("shifted edits that were stored when the host died are made once, and those after them too", async () => {
  const world = await new World().start(BEGIN)
  const [ann, bob] = world.pages
  const heads = bob.handle.heads()
  await world.settle()
  bob.handle.change(doc => {
    splice(doc, ["text"], 0, 0, "bob ")
    Object.assign(doc.map, { at: new Date(0), bytes: Uint8Array.of(1), large: 2n ** 60n })
  })
  // A draft refuses this one; peers need not.
  const operations = [["put", "_root", "endless", -Infinity]]
  bob.call("changeAt", [world.documentId, await heads, { operations, time: 0 }])
  bob.speakAll()
  // The commit of that is under way: hers are in the next one.
  ann.handle.change(doc => {
    splice(doc, ["text"], 11, 0, "!")
    doc.list.push({ by: "ann" })
  })
  ann.speak()
  await world.held.proceed()
  await turn()
  // After the edit that is stored without a word, one that no host ever heard of.
  ann.handle.change(doc => {
    splice(doc, ["text"], 12, 0, "?")
    doc.list.at(-1).by = "Ann"
  })
  await world.die({ commits: true })
  const { text, list, endless } = await world.end()
  assert.equal(endless, -Infinity)
  assert.equal(text, "bob hello world!?")
  assert.deepEqual(list, [1, 2, 3, { by: "Ann" }])
})

test("a place is found although the page has not seen what others changed", async () => {
  const world = await new World().start(BEGIN)
  const [ann, bob] = world.pages
  type(bob, 0, "bob ")
  bob.speak()
  type(ann, 5, ",")
  const cursor = ann.handle.cursor(["text"], 7)
  ann.speakAll()
  await turn()
  while (ann.into.length > 0) ann.hear()
  const position = ann.handle.position(["text"], await cursor)
  ann.speak()
  await turn()
  while (ann.into.length > 0) ann.hear()
  assert.equal(await position, 7)
  assert.equal(ann.handle.doc().text, "hello, world")
  const marks = ann.handle.marks(["text"])
  await world.settle()
  assert.deepEqual(await marks, [])
  const after = ann.handle.position(["text"], await cursor)
  await world.settle()
  assert.equal(await after, 11)
  assert.equal((await world.end()).text, "bob hello, world")
})

test("an edit of what is not there any more, and was emptied after that, does not keep the rest back", async () => {
  const world = await new World().start(BEGIN_WITH_NOTE)
  const [ann, bob, eve] = world.pages
  bob.handle.change(doc => {
    delete doc.list
    delete doc.note
  })
  eve.handle.change(doc => {
    doc.list.splice(0, 3)
    splice(doc, ["note"], 0, 4)
  })
  ann.handle.change(doc => {
    doc.list[1] = { by: "ann" }
    doc.list[1].at = 1
    doc.list.splice(2, 1, "three", { by: "ann" })
    doc.list.at(-1).at = 2
    splice(doc, ["note"], 2, 2, "o")
    mark(doc, ["note"], { start: 0, end: 3 }, "bold", true)
    splice(doc, ["text"], 0, 0, "ann ")
  })
  for (const page of [bob, eve, ann]) page.speak()
  ann.handle.change(doc => (doc.list[1].at = 3))
  ann.speak()
  await world.settle()
  assert.deepEqual(ann.handle.doc(), { count: new Counter(0), map: {}, text: "ann hello world" })
  // Of her two edits, the second had nothing that was left out; nobody else lost anything.
  assert.deepEqual([ann, bob, eve].map(page => page.errors.map(error => error.code)), [["removed"], [], []])
  for (const what of ["part", false]) {
    const undone = ann.handle.undo()
    await world.settle()
    assert.equal(await undone, what)
  }
  assert.equal((await world.end()).text, "hello world")
})

test("a page that asks again for a document goes on with what it has of it", async () => {
  const world = await new World().start(BEGIN)
  const [ann, bob] = world.pages
  type(bob, 0, "bob ")
  bob.speak()
  const again = ann.call("open", [world.documentId])
  ann.speak()
  await turn()
  type(ann, 5, ",")
  await world.settle()
  assert.equal(await again, undefined)
  type(bob, 4, "too ")
  await world.settle()
  assert.equal((await world.end()).text, "bob too hello, world")
})

test("what the next host goes on with can be merged at once", async () => {
  const world = await new World().start(BEGIN)
  const { elsewhere } = world
  type(elsewhere, 0, "elsewhere ")
  await world.settle([elsewhere])
  // A relay has it, so the next host does not load it by itself.
  await world.held.remove(["outbox", elsewhere.handle.documentId])
  await world.die({ commits: false })
  await world.settle()
  elsewhere.call("open", [world.documentId])
  const merged = elsewhere.call("merge", [world.documentId, elsewhere.handle.documentId])
  elsewhere.speakAll()
  await world.settle([elsewhere])
  await merged
  assert.equal((await world.end()).text, "elsewhere hello world")
})

test("the next host knows the heads of what nobody sees", async () => {
  const world = await new World().start(BEGIN)
  world.elsewhere.handle.change(doc => doc.count.increment(1))
  await world.editElsewhere(doc => doc.count.increment(-1))
  await world.settle()
  await world.die({ commits: false })
  await world.end()
})

test("a call that is cancelled is answered", async () => {
  const world = await new World().start(BEGIN)
  const [ann] = world.pages
  // There is no relay.
  const synced = ann.call("synced", [world.documentId, "replicated"])
  const [{ call }] = ann.out
  ann.post({ type: "cancel", call })
  const refused = assert.rejects(synced, /nobody waits/)
  await world.settle()
  await refused
  await world.end()
})

test("who leaves while the next host takes over is not told any more, and the edits are kept", async () => {
  const world = await new World().start(BEGIN)
  const [ann, bob] = world.pages
  type(ann, 0, "ann ")
  await world.die({ commits: false })
  ann.speak()
  ann.close()
  await world.settle()
  const { heard } = ann
  type(bob, 0, "bob ")
  await world.settle()
  assert.equal(ann.heard, heard)
  assert.equal(bob.handle.doc().text, "bob ann hello world")
  world.pages.shift()
  await world.end()
})

test("a document that was released while the next host took over is found again, with what was edited", async () => {
  const { start } = Host
  let host
  let opens = 0
  Host.start = async surroundings => {
    const started = await start.call(Host, surroundings)
    const attach = started.attach.bind(started)
    started.attach = port => {
      const close = attach(port)
      const { onmessage } = port
      port.onmessage = message => {
        if (message.name === "open" && ++opens > 10) throw new Error("it is asked for again and again")
        onmessage(message)
      }
      return close
    }
    return (host = started)
  }
  try {
    usePlatform({ module, webSocket: () => {} })
    const storage = new MemoryStorage()
    const repo = await Repo.open({ storage, worker: false })
    const handle = await repo.create({ text: "made" })
    await repo.flush()
    let load
    const loading = new Promise(resolve => (load = resolve))
    const loadRange = storage.loadRange.bind(storage)
    storage.loadRange = async prefix => {
      if (prefix[0] === "documents") await loading
      return loadRange(prefix)
    }
    const first = host
    host.ontrap(undefined, new Error("for this test"))
    while (host === first) await turn()
    await turn()
    handle.change(doc => splice(doc, ["text"], 4, 0, ", edited"))
    handle.release()
    load()
    for (let turns = 0; turns < 20; turns++) await turn()
    const found = await repo.find(handle.url)
    assert.notEqual(found, handle)
    assert.equal(found.doc().text, "made, edited")
    await repo.shutdown()
  } finally {
    Host.start = start
  }
})

test("a document that was released while it could not be read is found again, with what was edited", async () => {
  usePlatform({ module, webSocket: () => {} })
  let host
  const { start } = Host
  Host.start = async surroundings => (host = await start.call(Host, surroundings))
  try {
    const storage = new MemoryStorage()
    storage.close = () => {}
    const repo = await Repo.open({ storage, worker: false })
    const handle = await repo.create({ text: "made" })
    await repo.flush()
    const { loadRange } = storage
    storage.loadRange = async prefix => {
      if (prefix[0] === "documents") throw new Error("the disk hums")
      return loadRange.call(storage, prefix)
    }
    let isLost
    const lost = new Promise(resolve => (isLost = resolve))
    handle.on("error", isLost)
    const first = host
    host.ontrap(undefined, new Error("for this test"))
    while (host === first) await turn()
    assert.match((await lost).message, /the disk hums/)
    handle.change(doc => splice(doc, ["text"], 4, 0, ", edited"))
    handle.release()
    storage.loadRange = loadRange
    const found = await repo.find(handle.url)
    assert.equal(found.doc().text, "made, edited")
    found.change(doc => splice(doc, ["text"], 12, 0, " twice"))
    await repo.flush()
    await repo.shutdown()
    const again = await Repo.open({ storage, worker: false })
    assert.equal((await again.find(handle.url)).doc().text, "made, edited twice")
    await again.shutdown()
  } finally {
    Host.start = start
  }
})

test("a database that a later version wrote is left alone", async () => {
  usePlatform({ module, webSocket: () => {} })
  const storage = new MemoryStorage()
  storage.close = () => {}
  const repo = await Repo.open({ storage, worker: false })
  await repo.shutdown()
  await storage.save(["client", "format"], new TextEncoder().encode("3"))
  const before = await storage.loadRange([])
  await assert.rejects(Repo.open({ storage, worker: false }), { code: "storage", message: /newer version .* format 3/ })
  assert.deepEqual(await storage.loadRange([]), before)
})

test("a name that another repo's journal has is refused", async () => {
  await assert.rejects(Repo.open({ name: "x:journal" }), { code: "failed", message: /must not end with :journal/ })
})

test("no mark is begun that cannot end, in a text that was removed and shortened", async () => {
  const world = await new World().start(BEGIN_WITH_NOTE)
  const [ann, bob, eve] = world.pages
  bob.handle.change(doc => void delete doc.note)
  eve.handle.change(doc => splice(doc, ["note"], 2, 2))
  ann.handle.change(doc => {
    mark(doc, ["note"], { start: 0, end: 4 }, "bold", true)
    splice(doc, ["text"], 0, 0, "ann ")
  })
  for (const page of [bob, eve, ann]) page.speak()
  const history = ann.handle.history()
  await world.settle()
  assert.equal((await history).at(-1).operations, "ann ".length)
  assert.equal((await world.end()).text, "ann hello world")
})
