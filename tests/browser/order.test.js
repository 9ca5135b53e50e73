// One order for everything that a page says: what it edits and what it asks, while its host ends,
// while there is none, and while the next one takes over. Without threads, so that the test holds
// the next host where it wants.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { test } from "node:test"
import { load } from "./lib/bundle.js"
import { packageFolder } from "./lib/package.js"
import { random } from "./lib/random.js"

const { Host, MemoryStorage, Repo, splice, usePlatform } = await load("pages/views.js")
const module = readFileSync(join(packageFolder(), "dist/core/reconverge_bg.wasm"))
usePlatform({ module, webSocket: () => {} })

const turn = () => new Promise(resolve => setImmediate(resolve))
const turns = async () => {
  for (let i = 0; i < 20; i++) await turn()
}

/** Closed until it is opened. */
function gate() {
  let open
  const passed = new Promise(resolve => (open = resolve))
  return { passed, open }
}

const BEGIN = { text: "begin", list: [1, 2, 3] }

/** A repo whose hosts, loads and commits the test holds, and a handle with `BEGIN` that is stored. */
class World {
  storage = new MemoryStorage()
  hosts = []
  #ended
  #start = Host.start
  #gates = { start: undefined, load: undefined, commit: undefined }

  async open() {
    const { storage } = this
    const loadRange = storage.loadRange.bind(storage)
    storage.loadRange = async prefix => {
      if (prefix[0] === "documents") await this.#gates.load?.passed
      return loadRange(prefix)
    }
    const commit = storage.commit.bind(storage)
    storage.commit = async writes => {
      const { host } = this
      await this.#gates.commit?.passed
      // Of a host that ended meanwhile nothing comes any more.
      if (host && (host === this.#ended || host !== this.host)) return new Promise(() => {})
      await commit(writes)
    }
    const start = this.#start
    Host.start = async surroundings => {
      await this.#gates.start?.passed
      const host = await start.call(Host, surroundings)
      this.hosts.push(host)
      const attach = host.attach.bind(host)
      host.attach = port => {
        const end = attach(port)
        const { onmessage, post } = port
        port.onmessage = message => host === this.#ended || onmessage(message)
        port.post = message => host === this.#ended || post(message)
        return end
      }
      return host
    }
    this.repo = await Repo.open({ storage, worker: false })
    this.doc = await this.repo.create(BEGIN)
    this.copy = await this.doc.clone()
    await this.repo.flush()
    return this
  }

  get host() {
    return this.hosts.at(-1)
  }

  hold(...names) {
    for (const name of names) this.#gates[name] = gate()
  }

  async letGo(...names) {
    for (const name of names) {
      this.#gates[name]?.open()
      this.#gates[name] = undefined
    }
    await turns()
  }

  /** The host ends as it does in a trap: it says and stores nothing more. */
  async endHost() {
    this.#ended = this.host
    this.host.ontrap(undefined, new Error("for this test"))
    await turns()
  }

  /** Resolves when the next commit is stored, of which the host never hears; later ones are as ever. */
  silence() {
    const { storage } = this
    const { commit } = storage
    return new Promise(resolve => {
      storage.commit = async writes => {
        await commit(writes)
        storage.commit = commit
        resolve()
        return new Promise(() => {})
      }
    })
  }

  /** What a page would find that opens now, if all others were gone. */
  async found(url = this.doc.url) {
    const storage = new MemoryStorage()
    await storage.commit((await this.storage.loadRange([])).map(({ key, data }) => ({ put: key, data })))
    const start = Host.start
    Host.start = this.#start
    const repo = await Repo.open({ storage, worker: false })
    Host.start = start
    const doc = await repo.find(url)
    const shown = doc.doc()
    await repo.shutdown()
    return shown
  }

  async close() {
    await this.letGo("start", "load", "commit")
    await this.repo.shutdown()
    // Those that only seemed to have ended.
    for (const host of this.hosts) void host.close()
    Host.start = this.#start
  }
}

/** In the order in which a host comes: none is there, it is told of the document, it is there. */
const WINDOWS = {
  "while no host is there": world => world.hold("start"),
  "while the next host loads": world => world.hold("load"),
  "while no host is there, and the one after that loads": world => world.hold("start", "load"),
}

function everywhere(name, body) {
  for (const [when, hold] of Object.entries(WINDOWS)) {
    test(`${name} ${when}`, async () => {
      const world = await new World().open()
      try {
        hold(world)
        await world.endHost()
        await body(world, () => world.letGo("start", "load"))
      } finally {
        await world.close()
      }
    })
  }
}

const set = (doc, key, value = true) => doc.change(draft => (draft[key] = value))

everywhere("an edit is stored before whenSynced says so, when made", async (world, goOn) => {
  const { doc } = world
  world.hold("commit")
  let synced = 0
  const say = () => doc.whenSynced({ level: "local" }).then(() => (synced += 1))
  set(doc, "first")
  const said = [say()]
  set(doc, "second")
  said.push(say())
  await goOn()
  assert.equal(synced, 0, "it is only in the page")
  await world.letGo("commit")
  await Promise.all(said)
  assert.deepEqual(await world.found(), { ...BEGIN, first: true, second: true })
})

everywhere("undo takes back the last edit before it", async (world, goOn) => {
  const { doc } = world
  set(doc, "a")
  set(doc, "b")
  const undone = doc.undo()
  set(doc, "c")
  const [again, redone] = [doc.undo(), doc.redo()]
  set(doc, "d")
  await goOn()
  assert.deepEqual(await Promise.all([undone, again, redone]), ["all", "all", "all"])
  assert.deepEqual(doc.doc(), { ...BEGIN, a: true, c: true, d: true })
  await world.repo.flush()
  assert.deepEqual(await world.found(), { ...BEGIN, a: true, c: true, d: true })
})

everywhere("what was typed in two goes is taken back in two, as it was typed", async (world, goOn) => {
  const { doc } = world
  const { now } = Date
  try {
    Date.now = () => now() - 10_000
    doc.change(draft => splice(draft, ["text"], 5, 0, " one"))
    Date.now = () => now() - 5_000
    doc.change(draft => splice(draft, ["text"], 9, 0, " two"))
  } finally {
    Date.now = now
  }
  const undone = doc.undo()
  await goOn()
  assert.equal(await undone, "all")
  assert.equal(doc.doc().text, "begin one")
})

everywhere("all that is asked is answered with the edits before, and without those after,", async (world, goOn) => {
  const { doc, repo } = world
  set(doc, "first")
  doc.change(draft => draft.list.unshift(0))
  const asked = {
    heads: doc.heads(),
    history: doc.history(),
    clone: doc.clone(),
    cursor: doc.cursor(["list"], 1),
    marks: doc.marks(["text"]),
    spans: doc.spans(["text"]),
    bytes: repo.export(doc.url),
    flushed: repo.flush().then(() => world.found()),
  }
  set(doc, "last")
  doc.change(draft => draft.list.unshift(-1))
  const after = doc.heads()
  await goOn()
  const first = { ...BEGIN, first: true, list: [0, 1, 2, 3] }
  assert.deepEqual(await doc.view(await asked.heads), first)
  assert.deepEqual(await doc.view(await after), { ...first, last: true, list: [-1, 0, 1, 2, 3] })
  assert.equal((await asked.history).length, 3)
  assert.deepEqual((await asked.clone).doc(), first)
  assert.equal(await doc.position(["list"], await asked.cursor), 2)
  assert.deepEqual(await asked.marks, [])
  assert.deepEqual(await asked.spans, [{ type: "text", value: "begin" }])
  const exported = await repo.import(await asked.bytes)
  assert.equal(exported.doc().first, true)
  assert.equal((await asked.flushed).first, true)
})

everywhere("a merge has what both documents were edited before", async (world, goOn) => {
  const { copy, doc } = world
  set(copy, "theirs")
  set(doc, "mine")
  const merged = doc.merge(copy)
  const heads = doc.heads()
  set(copy, "too late")
  set(doc, "later")
  await goOn()
  await merged
  const both = { ...BEGIN, mine: true, theirs: true }
  assert.deepEqual(await doc.view(await heads), both)
  assert.deepEqual(await doc.view(await doc.heads()), { ...both, later: true })
})

everywhere("changeAt and view are of the past that was asked for, with edits around,", async (world, goOn) => {
  const { doc } = world
  set(doc, "a")
  const heads = doc.heads()
  set(doc, "b")
  const changed = heads.then(at => doc.changeAt(at, draft => (draft.c = true)))
  await goOn()
  assert.deepEqual(await doc.view(await changed), { ...BEGIN, a: true, c: true })
  await doc.whenSynced({ level: "local" })
  assert.deepEqual(await world.found(), { ...BEGIN, a: true, b: true, c: true })
})

everywhere("what was edited is kept though the handle was let go of", async (world, goOn) => {
  const { doc, repo } = world
  set(doc, "edited")
  doc.release()
  const again = repo.find(doc.url)
  await goOn()
  const found = await again
  assert.notEqual(found, doc)
  set(found, "more")
  assert.deepEqual(found.doc(), { ...BEGIN, edited: true, more: true })
  found.release()
  await repo.flush()
  assert.deepEqual(await world.found(), { ...BEGIN, edited: true, more: true })
})

test("a document that was let go of in its host's last moment has what was edited", async () => {
  const world = await new World().open()
  try {
    world.hold("commit")
    set(world.doc, "edited")
    world.doc.release()
    await turns()
    await world.endHost()
    await world.letGo("commit")
    await world.repo.flush()
    assert.deepEqual(await world.found(), { ...BEGIN, edited: true })
  } finally {
    await world.close()
  }
})

test("what is asked of three hosts, two of which end before they answer, is answered in order", async () => {
  const world = await new World().open()
  const { doc } = world
  try {
    world.hold("load")
    await world.endHost()
    set(doc, "a")
    const heads = doc.heads()
    set(doc, "b")
    const undone = doc.undo()
    world.hold("start")
    await world.endHost()
    set(doc, "c")
    const synced = doc.whenSynced({ level: "local" })
    await world.letGo("start", "load")
    assert.equal(await undone, "all")
    await synced
    assert.deepEqual(await doc.view(await heads), { ...BEGIN, a: true })
    assert.deepEqual(await world.found(), { ...BEGIN, a: true, c: true })
  } finally {
    await world.close()
  }
})

test("an edit after a call is made once, when the host that stored it died before it said so", async () => {
  const world = await new World().open()
  const { doc } = world
  try {
    // Stored, and the host ends while it hears of it.
    const stored = world.silence()
    const undone = doc.undo()
    doc.change(draft => draft.list.push(4))
    await stored
    world.hold("start")
    await world.endHost()
    doc.change(draft => draft.list.push(5))
    await world.letGo("start")
    assert.equal(await undone, false)
    await doc.whenSynced({ level: "local" })
    assert.deepEqual(doc.doc().list, [1, 2, 3, 4, 5])
    assert.deepEqual((await world.found()).list, [1, 2, 3, 4, 5])
  } finally {
    await world.close()
  }
})

for (const [what, act, expected] of [
  ["undo", doc => doc.undo(), { ...BEGIN, n: 0 }],
  ["restore", (doc, heads) => doc.restore(["list"], heads), { ...BEGIN, text: "", list: [1, 2, 3], n: 0 }],
]) {
  test(`${what} is done once, when the host that stored it died before it said so`, async () => {
    const world = await new World().open()
    const { doc } = world
    try {
      const heads = await doc.heads()
      doc.change(draft => (draft.n = 0))
      if (what === "restore") doc.change(draft => (draft.list = [5]))
      doc.change(draft => splice(draft, ["text"], 0, 5))
      await world.repo.flush()
      const stored = world.silence()
      const done = act(doc, heads)
      await stored
      world.hold("start")
      await world.endHost()
      await world.letGo("start")
      assert.equal(await done, what === "undo" ? "all" : undefined)
      await doc.whenSynced({ level: "local" })
      assert.deepEqual(doc.doc(), expected)
      assert.deepEqual(await world.found(), expected)
      // What takes it back is known, too.
      assert.equal(await (what === "undo" ? doc.redo() : doc.undo()), "all")
      assert.deepEqual(doc.doc(), what === "undo" ? { ...BEGIN, text: "", n: 0 } : { ...BEGIN, text: "", list: [5], n: 0 })
    } finally {
      await world.close()
    }
  })
}

test("a document with which the next host cannot go on answers nothing as if it had the edits", async () => {
  const world = await new World().open()
  const { doc, repo, storage } = world
  try {
    const errors = []
    doc.on("error", error => errors.push(error))
    const { loadRange } = storage
    storage.loadRange = async prefix => {
      if (prefix[0] === "documents") throw new Error("unreadable, on purpose")
      return loadRange(prefix)
    }
    world.hold("start")
    await world.endHost()
    set(doc, "edited")
    const asked = Promise.allSettled([
      doc.whenSynced({ level: "local" }),
      doc.heads(),
      doc.undo(),
      doc.history(),
      doc.clone(),
    ])
    await world.letGo("start")
    for (const { status, reason } of await asked) {
      assert.equal(status, "rejected")
      assert.equal(reason.code, "storage")
    }
    await assert.rejects(doc.whenSynced({ level: "local" }), /unreadable/)
    assert.equal(errors.length, 1)
    assert.match(doc.status.storageError, /unreadable/)
    // The host after that can.
    storage.loadRange = loadRange
    await world.endHost()
    await doc.whenSynced({ level: "local" })
    assert.deepEqual(await world.found(), { ...BEGIN, edited: true })
    await repo.flush()
  } finally {
    await world.close()
  }
})

test("what can be taken back is the same, whichever hosts it was made under", async t => {
  const seed = Number(process.env.RECONVERGE_SEED ?? Math.floor(Math.random() * 2 ** 32))
  t.diagnostic(`RECONVERGE_SEED=${seed}`)
  const kinds = [
    doc => doc.change(draft => draft.list.push(draft.list.length)),
    doc => doc.change(draft => void draft.list.splice(0, 1)),
    doc => doc.change(draft => splice(draft, ["text"], 1, 1, "ab")),
    doc => doc.change(draft => (draft.card = { text: "card", tags: ["new"] })),
    doc => doc.change(draft => draft.card?.tags.push("more")),
    doc => doc.change(draft => delete draft.card),
    doc => doc.undo(),
    doc => doc.undo(),
    doc => doc.redo(),
    doc => doc.undo({ in: ["card"] }),
  ]
  /** What a page saw, step by step, of which some ended their hosts: before or after they stored what it did. */
  const told = async (round, endsMax) => {
    const [pick, chance] = [random(seed + round), random(seed ^ round)]
    const world = await new World().open()
    const { doc } = world
    const steps = []
    let ends = 0
    try {
      for (let step = 0; step < 25; step++) {
        const kind = kinds[pick(kinds.length)]
        const isEnd = chance(3) === 0 && ends++ < endsMax
        const isLate = chance(2) === 0
        if (isEnd) Object.values(WINDOWS)[chance(3)](world)
        if (isEnd && !isLate) await world.endHost()
        const done = kind(doc)
        if (isEnd && isLate) await world.endHost()
        await world.letGo("start", "load")
        steps.push([await done, doc.doc(), doc.undoable()])
      }
      await world.repo.flush()
      return [...steps, await world.found()]
    } finally {
      await world.close()
    }
  }
  // An engine that ends more often than ten times in a minute is not started again.
  for (let round = 0; round < 15; round++) assert.deepEqual(await told(round, 9), await told(round, 0), `round ${round}`)
})
