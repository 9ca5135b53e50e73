// The past of a document, in Node.js: what changed a part of it, and who did that; the differences
// between states; conflicts; putting a part back. Long requests hold up nobody, and can be ended.

import assert from "node:assert/strict"
import { after, test } from "node:test"
import * as A from "@automerge/automerge"
import { until } from "../interop/lib/wait.js"
import { random } from "./lib/random.js"
import { story } from "./lib/world.js"

const { Counter, ImmutableString, mark, Repo, splice, splitBlock, updateText } = await import("../../wasm/dist/node.js")

const repos = []
const open = async options => {
  const repo = await Repo.open({ storage: "memory", ...options })
  repos.push(repo)
  return repo
}
after(() => Promise.all(repos.map(repo => repo.shutdown())))

const repo = await open()
const bytesOf = handle => repo.export(handle.url)
const hashes = changes => changes.map(({ hash }) => hash)
const last = async handle => (await handle.heads())[0]

/** Two people's copies of a document, and what merges them: into the first one. */
async function two(contents) {
  const ann = await repo.create(contents)
  const bob = await ann.clone()
  return { ann, bob, merge: () => ann.merge(bob) }
}

/** A list of notes of one author each, long enough that it cannot be told in one turn. */
async function long(count) {
  let doc = A.from({ text: "", n: 0 })
  const automerge = A.getBackend(doc)
  for (let n = 1; n < count; n++) {
    automerge.put("_root", "n", n)
    automerge.commit()
  }
  return repo.import(automerge.save())
}

test("an edit is made and stored while a long history is told", async () => {
  const doc = await long(20_000)
  const order = []
  const history = doc.history().then(changes => order.push(`history of ${changes.length >= 20_000}`))
  doc.change(draft => (draft.n = -1))
  await doc.whenSynced({ level: "local" }).then(() => order.push("stored"))
  await history
  assert.deepEqual(order, ["stored", "history of true"])
})

test("what was asked before an edit does not hold it up, however often it was asked", async () => {
  const doc = await repo.create({ cards: Array.from({ length: 300 }, (_, i) => ({ title: `card ${i}`, text: "x".repeat(300) })) })
  const heads = await doc.heads()
  const order = []
  const views = Array.from({ length: 40 }, () => doc.view(heads).then(() => order.push("view")))
  doc.change(draft => (draft.cards[0].title = "another"))
  await doc.whenSynced({ level: "local" }).then(() => order.push("stored"))
  await Promise.all(views)
  assert.equal(order.length, 41)
  assert.ok(order.indexOf("stored") < 40, `stored after ${order.indexOf("stored")} views`)
})

test("a request that is not wanted any more ends, and others go on", async () => {
  const doc = await long(5_000)
  const heads = await doc.heads()
  for (const ask of [signal => doc.history({ signal }), signal => doc.diff([], heads, { signal }), signal => doc.view(heads, { signal })]) {
    const control = new AbortController()
    const asked = ask(control.signal)
    const other = doc.history()
    control.abort(new Error("enough"))
    await assert.rejects(asked, /enough/)
    assert.ok((await other).length >= 5_000)
    await assert.rejects(async () => ask(AbortSignal.abort(new Error("before"))), /before/)
  }
})

test("the history of a part has the changes of it and of what is in it, and no others", async () => {
  const doc = await repo.create({ cards: [{ title: "a", tags: [] }, { title: "b", tags: [] }] })
  const made = await last(doc)
  const did = {}
  const change = async (name, fn) => {
    doc.change(fn, { message: name })
    did[name] = await last(doc)
  }
  await change("other", draft => splice(draft, ["cards", 1, "title"], 1, 0, "!"))
  await change("text", draft => splice(draft, ["cards", 0, "title"], 1, 0, "!"))
  await change("before it", draft => draft.cards.unshift({ title: "new", tags: [] }))
  await change("tag", draft => draft.cards[1].tags.push("red"))
  await change("key", draft => (draft.cards[1].done = true))
  await change("new text", draft => (draft.cards[1].title = "another"))
  const of = async path => hashes(await doc.history({ path }))
  assert.deepEqual(await of(["cards", 1]), [made, did.text, did.tag, did.key, did["new text"]])
  assert.deepEqual(await of(["cards", 1, "tags"]), [made, did.tag])
  assert.deepEqual(await of(["cards", 1, "title"]), [did["new text"]])
  assert.deepEqual(await of(["cards", 0]), [did["before it"]])
  assert.deepEqual(await of([]), hashes(await doc.history()))
  const place = doc.place(["cards", 1])
  doc.change(draft => draft.cards.shift())
  assert.deepEqual(hashes(await doc.history({ path: place })), await of(["cards", 0]))
  for (const path of [["cards", 7], ["cards", 0, "done"], ["nothing"]]) await assert.rejects(doc.history({ path }), RangeError)
})

test("who made a change is told, also by stock clients: edits, what is taken back, new documents", async () => {
  const ann = await open({ author: "Ann Ä." })
  const doc = await ann.create({ text: "a", n: 1 })
  doc.change(draft => (draft.n = 2), { message: "two" })
  await doc.undo()
  await doc.redo()
  await doc.changeAt([], draft => (draft.m = 3))
  await doc.restore([], await doc.heads())
  const changes = await doc.history()
  assert.equal(changes.length, 5)
  for (const { author, isOwn } of changes) assert.deepEqual([author, isOwn], ["Ann Ä.", true])
  assert.equal(changes[1].message, "two")
  assert.equal(changes[0].actor, await doc.actor())
  const stock = A.load(await ann.export(doc.url))
  assert.deepEqual(A.toJS(stock), { m: 3, n: 2, text: "a" })
  assert.deepEqual(A.getAuthors(stock), [Buffer.from("Ann Ä.").toString("hex")])
  const there = A.change(stock, draft => (draft.n = 4))
  // Who opens it edits in another name, or in none.
  for (const [author, of] of [["Bob", await open({ author: "Bob" })], [undefined, repo]]) {
    const copy = await of.import(A.save(there))
    copy.change(draft => (draft.n = 5))
    const told = (await copy.history()).map(({ author, isOwn }) => [author, isOwn])
    assert.deepEqual(told, [...Array(5).fill(["Ann Ä.", false]), [undefined, false], [author, true]])
  }
  for (const author of ["", "x".repeat(257), 7, "a\nb"]) await assert.rejects(Repo.open({ author }), /author/)
})

test("changes of one author within a time are told as one", async () => {
  const { ann: doc, bob, merge } = await two({ text: "" })
  for (let i = 0; i < 5; i++) doc.change(draft => splice(draft, ["text"], i, 0, "x"))
  bob.change(draft => (draft.title = "by somebody else"))
  await merge()
  const all = await doc.history()
  const groups = await doc.history({ group: 3600 })
  assert.deepEqual(groups.flatMap(({ changes }) => changes), all)
  assert.equal(groups.length, 2)
  assert.deepEqual(groups.map(({ isOwn }) => isOwn), [true, false])
  for (const group of [-1, NaN, "5", null]) await assert.rejects(doc.history({ group }), RangeError)
})

test("who edits at the same time as somebody else has one group, too", async () => {
  const { ann, bob, merge } = await two({ text: "" })
  for (let i = 0; i < 5; i++) {
    for (const doc of [ann, bob]) doc.change(draft => splice(draft, ["text"], 0, 0, "x"))
    await merge()
  }
  const groups = await ann.history({ group: 3600 })
  assert.deepEqual(groups.map(({ changes }) => changes.length).sort(), [5, 6])
  for (const { changes } of groups) assert.equal(new Set(changes.map(({ actor }) => actor)).size, 1)
})

test("a path that is none, or leads to something else, is told so", async () => {
  const { ann } = await two({ map: {}, list: ["a"], text: "" })
  await assert.rejects(ann.conflicts(["list", -1]), RangeError)
  await assert.rejects(ann.cursor(["map"], 0), RangeError)
  await assert.rejects(ann.position(["map"], "x"), RangeError)
  for (const path of ["text", undefined, 0]) {
    if (path !== undefined) await assert.rejects(ann.history({ path }), /TypeError: a path is a list/)
    await assert.rejects(ann.conflicts(path), /TypeError: a path is a list/)
    await assert.rejects(ann.restore(path, []), /TypeError: a path is a list/)
    assert.throws(() => ann.place(path), /TypeError: a path is a list/)
  }
})

test("a part is put back: what stays is edited, what was deleted is made again", async () => {
  const date = new Date(5)
  const { ann: doc, bob, merge } = await two({
    cards: [
      { title: "one", kind: new ImmutableString("bug"), votes: new Counter(3), due: date, bytes: new Uint8Array([1]) },
      { title: "two", kind: new ImmutableString("idea"), votes: new Counter(0), due: date, bytes: new Uint8Array() },
    ],
    title: "board",
  })
  const before = await doc.heads()
  const was = doc.doc()
  doc.change(draft => {
    draft.cards[0].votes.increment(2)
    splice(draft, ["cards", 0, "title"], 0, 3, "first")
    draft.cards[0].kind = new ImmutableString("chore")
    draft.cards[0].due = new Date(6)
    delete draft.cards[0].bytes
    draft.cards[0].more = { deep: ["x"] }
    draft.cards.splice(1, 1)
    draft.title = "another"
  })
  bob.change(draft => {
    draft.cards[0].votes.increment(10)
    splice(draft, ["cards", 0, "title"], 3, 0, "!")
    draft.cards[0].by = "bob"
  })
  await doc.restore(["cards", 0], before, { message: "back" })
  assert.deepEqual(doc.doc().cards, [was.cards[0]])
  assert.equal(doc.doc().title, "another")
  assert.equal((await doc.history()).at(-1).message, "back")
  await merge()
  assert.equal(doc.doc().cards[0].votes.value, 13)
  assert.equal(doc.doc().cards[0].title.includes("!"), true)
  assert.equal(doc.doc().cards[0].by, "bob")
  const stock = A.load(await bytesOf(doc))
  assert.ok(A.isImmutableString(stock.cards[0].kind))
  assert.ok(stock.cards[0].due instanceof Date)
  // The list, with the card that was deleted, and a key.
  await doc.restore(["cards"], before)
  await doc.restore(["title"], before)
  assert.deepEqual(doc.doc(), was)
  const again = A.load(await bytesOf(doc))
  assert.ok(A.isImmutableString(again.cards[1].kind))
  assert.ok(A.isCounter(again.cards[1].votes))
  assert.equal(await doc.undo(), "all")
  assert.equal(doc.doc().title, "another")
  assert.equal(await doc.redo(), "all")
  assert.deepEqual(doc.doc(), was)
})

test("a text is put back with its blocks and marks", async () => {
  const doc = await repo.create({ text: "hello world" })
  doc.change(draft => {
    splitBlock(draft, ["text"], 5, { type: "p", level: 1 })
    mark(draft, ["text"], { start: 0, end: 5 }, "bold", true)
  })
  const before = await doc.heads()
  const [text, spans] = [doc.doc().text, await doc.spans(["text"])]
  doc.change(draft => splice(draft, ["text"], 2, 8, "y"))
  await doc.restore(["text"], before)
  assert.equal(doc.doc().text, text)
  assert.deepEqual(await doc.spans(["text"]), spans)
  doc.change(draft => (draft.text = "quite another"))
  await doc.restore(["text"], before)
  assert.deepEqual(await doc.spans(["text"]), spans)
})

test("a part that is put back is what it was, for random edits", async t => {
  const seed = Number(process.env.RECONVERGE_SEED ?? Date.now() % 1e9)
  t.diagnostic(`RECONVERGE_SEED=${seed}`)
  const below = random(seed)
  const letters = () => "abcdefghij".slice(below(5), 5 + below(5))
  const value = depth => {
    const kinds = [() => letters(), () => below(100), () => new Counter(below(9)), () => new ImmutableString(letters()), () => new Date(below(1e6))]
    const inner = [() => ({ a: value(depth + 1), b: value(depth + 1) }), () => [value(depth + 1), value(depth + 1)]]
    return [...kinds, ...(depth < 3 ? inner : [])][below(depth < 3 ? 7 : 5)]()
  }
  const edit = (at, path, draft) => {
    const list = Array.isArray(at)
    const keys = Object.keys(at)
    const key = list ? below(at.length + 1) : ["a", "b", "c"][below(3)]
    const deep = keys.filter(key => typeof at[key] === "object" && !(at[key] instanceof Date))
    if (deep.length > 0 && below(3) > 0) {
      const key = deep[below(deep.length)]
      if (at[key].increment) return at[key].increment(1 + below(5))
      return edit(at[key], [...path, list ? Number(key) : key], draft)
    }
    if (list && below(3) === 0) return at.splice(key, 1)
    if (list) return at.splice(key, 0, value(1))
    if (below(4) === 0) return delete at[key]
    at[key] = value(1)
  }
  for (let run = 0; run < 12; run++) {
    const doc = await repo.create({ a: { a: {}, b: [] }, b: [{ a: "text" }], c: "text" })
    const states = []
    for (let i = 0; i < 12; i++) {
      for (let n = 0; n <= below(3); n++) doc.change(draft => edit(draft, [], draft))
      states.push([await doc.heads(), doc.doc()])
    }
    for (let i = 0; i < 6; i++) {
      const [heads, state] = states[below(states.length)]
      const key = ["a", "b", "c"][below(3)]
      const others = { ...doc.doc() }
      await doc.restore([key], heads).catch(error => {
        // There is nothing now, and was nothing.
        assert.ok(!(key in others), error)
      })
      assert.deepEqual(doc.doc()[key], state[key], `run ${run}, ${key}`)
      assert.deepEqual({ ...doc.doc(), [key]: 0 }, { ...others, [key]: 0 })
      await doc.restore([], heads)
      assert.deepEqual(doc.doc(), state)
    }
  }
})

story("of a value at the same place both hear, whichever is shown", async world => {
  const { url: relay } = await world.relay()
  const [one, other] = [await open({ relay }), await open({ relay })]
  const ann = await one.create({ kind: "x", n: 0 })
  await ann.whenSynced()
  const bob = await other.find(ann.url)
  one.goOffline()
  ann.change(d => (d.n = 1))
  bob.change(d => (d.n = 2))
  await bob.whenSynced()
  const heard = { ann: [], bob: [] }
  ann.on("change", ({ patches, source }) => heard.ann.push([patches.length, source]))
  bob.on("change", ({ patches, source }) => heard.bob.push([patches.length, source]))
  one.goOnline()
  await ann.whenSynced()
  const both = async () => heard.ann.length + heard.bob.length === 2
  await until("both to hear of it", both, { seen: () => heard })
  assert.deepEqual([...heard.ann, ...heard.bob].sort(), [[0, "remote"], [1, "remote"]])
  assert.deepEqual(ann.doc(), bob.doc())
  for (const handle of [ann, bob]) assert.deepEqual(Object.values(await handle.conflicts(["n"])).sort(), [1, 2])
  // The value that is shown is settled on by being set anew.
  const { n } = ann.doc()
  ann.change(d => {
    delete d.n
    d.n = n
  })
  assert.equal(await ann.conflicts(["n"]), undefined)
  assert.equal(ann.doc().n, n)
})

test("concurrent values are all told", async () => {
  const { ann: doc, bob, merge } = await two({ list: ["a", "b"], kind: "x", n: 0 })
  doc.change(draft => {
    draft.kind = new ImmutableString("mine")
    draft.n = new Counter(4)
    draft.list[1] = { deep: [1, new Date(7)] }
  })
  bob.change(draft => {
    draft.kind = new ImmutableString("theirs")
    draft.n = 5n
    draft.list[1] = "text"
    draft.list.unshift("first")
  })
  assert.equal(await doc.conflicts(["kind"]), undefined)
  await merge()
  const stock = A.load(await bytesOf(doc))
  const theirs = (of, prop) => A.getConflicts(of, prop)
  assert.deepEqual(Object.values(await doc.conflicts(["kind"])).sort(), ["mine", "theirs"])
  assert.deepEqual(Object.keys(await doc.conflicts(["kind"])).sort(), Object.keys(theirs(stock, "kind")).sort())
  assert.deepEqual(Object.values(await doc.conflicts(["n"])).sort(), [4, 5])
  const inList = await doc.conflicts(["list", 2])
  assert.deepEqual(new Set(Object.values(inList)), new Set(["text", { deep: [1, new Date(7)] }]))
  assert.deepEqual(Object.keys(inList).sort(), Object.keys(theirs(stock.list, 2)).sort())
  assert.equal(await doc.conflicts(["list", 0]), undefined)
  assert.equal(await doc.conflicts(["no such key"]), undefined)
  for (const path of [[], ["no", "such"], ["list", "x"], ["kind", 0]]) await assert.rejects(doc.conflicts(path), RangeError)
  doc.change(draft => (draft.kind = new ImmutableString("one")))
  assert.equal(await doc.conflicts(["kind"]), undefined)
})

test("odd requests", async () => {
  const { ann: doc, bob, merge } = await two({ a: { text: "x" }, list: [1, 2, 3], n: new Counter(1) })
  const heads = await doc.heads()
  doc.change(draft => {
    delete draft.a
    draft.n.increment(4)
  })
  bob.change(draft => (draft.list = [1, 3]))
  const here = await doc.heads()
  await merge()
  const now = await doc.heads()
  // Equal heads, reversed ones, siblings, named twice, nothing.
  assert.deepEqual(await doc.diff(now, now), [])
  assert.deepEqual(await doc.diff([], []), [])
  assert.deepEqual(await doc.diff(now, heads), [
    { action: "put", path: ["a"], value: {} },
    { action: "inc", path: ["n"], value: -4 },
    { action: "put", path: ["a", "text"], value: "" },
    { action: "splice", path: ["a", "text", 0], value: "x" },
    { action: "insert", path: ["list", 1], values: [2] }
  ])
  assert.deepEqual(await doc.diff([...now, ...now], [...here, ...here]), await doc.diff(now, here))
  assert.deepEqual(await doc.diff([...heads, ...now], now), [])
  const sibling = now.filter(hash => hash !== here[0])
  assert.deepEqual((await doc.diff(sibling, here)).map(({ action, path }) => [action, ...path]), [
    ["del", "a"],
    ["inc", "n"],
    ["insert", "list", 1]
  ])
  // Unknown heads, and what are none.
  const unknown = "00".repeat(32)
  for (const ask of [() => doc.diff([unknown], now), () => doc.view([unknown]), () => doc.restore(["list"], [unknown])]) {
    await assert.rejects(ask(), /has no change 0000/)
  }
  await assert.rejects(doc.diff("abc", now), /heads are an array/)
  await assert.rejects(doc.restore(["list"], ["abc"]), /no hash/)
  // What is gone, or was not there.
  await assert.rejects(doc.history({ path: ["a"] }), RangeError)
  await assert.rejects(doc.restore(["a", "text"], heads), RangeError)
  await assert.rejects(doc.restore(["list", 0], heads), RangeError)
  doc.change(draft => draft.list.push({ x: 1 }))
  await assert.rejects(doc.restore(["list", 2], heads), /was not there/)
  for (const options of [{}, { undo: false }]) {
    await assert.rejects(doc.restore(["never"], heads, options), { name: "RangeError", message: /nothing at \/never/ })
    await assert.rejects(doc.restore(["list", 2, "y"], await doc.heads(), options), RangeError)
  }
  await doc.restore(["a"], heads)
  assert.deepEqual(doc.doc().a, { text: "x" })
  doc.change(draft => (draft.later = { x: 1 }))
  await doc.restore(["later"], heads)
  assert.equal("later" in doc.doc(), false)
  // Nothing to do is no change.
  const same = await doc.heads()
  await doc.restore([], same)
  assert.deepEqual(await doc.heads(), same)
})

test("a cursor is of one text or list, whoever says what", async () => {
  const problems = []
  const off = repo.on("problem", problem => problems.push(problem))
  const doc = await repo.create({ one: "one \u{1F600}", other: "other", list: [{}, 1], map: {} })
  const places = [["one"], ["other"], ["list"]]
  const cursors = await Promise.all(places.map(path => doc.cursor(path, 1)))
  const [, , actor] = /(\d+)@(\w+)/.exec(cursors[0])
  for (const [n, cursor] of cursors.entries()) {
    for (const [m, path] of places.entries()) {
      if (n === m) assert.equal(await doc.position(path, cursor), 1)
      else await assert.rejects(doc.position(path, cursor), { code: "failed", message: /is no cursor of this/ })
    }
    await assert.rejects(doc.position(["map"], cursor), { name: "RangeError" })
  }
  for (const cursor of ["", "-", "é", "1", "@", `0@${actor}`, `999@${actor}`, `1@${actor}`, `${2 ** 64}@${actor}`, `${2 ** 40}@${actor}`, `-3@${"00".repeat(16)}`, "2@xyz"]) {
    await assert.rejects(doc.position(["other"], cursor), { code: "failed" }, cursor)
  }
  // As a comment's anchor in a text that somebody assigned anew.
  doc.change(draft => (draft.one = "anew"))
  await assert.rejects(doc.position(["one"], cursors[0]), { code: "failed" })
  assert.equal(await doc.position(["list"], cursors[2]), 1)
  assert.deepEqual([problems, doc.doc().one], [[], "anew"])
  off()
})

test("one past is edited as often as one likes", async () => {
  for (let round = 0; round < 20; round++) {
    const doc = await repo.create({ n: 0 })
    const before = await doc.heads()
    doc.change(d => (d.n = 1))
    let one = before
    for (let i = 0; i < 6; i++) {
      await doc.changeAt(before, d => (d[`from ${i}`] = i))
      one = await doc.changeAt(one, d => (d[`on ${i}`] = i))
    }
    assert.deepEqual(Object.keys(doc.doc()).length, 13)
    const saved = A.load(await bytesOf(doc))
    assert.deepEqual(Object.keys(saved).length, 13)
  }
})

test("an edit of the past has nothing to do with what was marked since", async () => {
  const acts = {
    ...Object.fromEntries(["before", "after", "both", "none"].map(expand => [expand, d => mark(d, ["t"], { start: 1, end: 4, expand }, "link", "x")])),
    unmark: d => mark(d, ["t"], { start: 1, end: 4 }, "link", null),
    block: d => splitBlock(d, ["t"], 1, { type: "p" }),
    nothing: () => {},
  }
  for (const [name, act] of Object.entries(acts)) {
    for (const at of [0, 1, 3, 4, 5]) {
      const doc = await repo.create({ t: "hello" })
      const before = await doc.heads()
      doc.change(act)
      const heads = await doc.changeAt(before, d => splice(d, ["t"], at, 0, "P"))
      const expected = `${"hello".slice(0, at)}P${"hello".slice(at)}`
      assert.equal((await doc.view(heads)).t, expected, `${name} at ${at}`)
      assert.equal(doc.doc().t.replace("\ufffc", ""), expected, `${name} at ${at}`)
      const last = (await doc.history()).find(({ hash }) => hash === heads[0])
      assert.equal(last.isOwn, true)
      // Another who has nothing of what was made since can take it.
      const saved = A.load(await bytesOf(doc))
      const [early] = A.applyChanges(A.init(), A.getAllChanges(A.view(saved, heads)).filter(change => [...before, ...heads].includes(A.decodeChange(change).hash)))
      assert.equal(String(early.t), expected, `${name} at ${at}`)
      doc.change(d => (d.later = true))
      await repo.flush()
      assert.deepEqual(Object.keys(A.load(await bytesOf(doc))).sort(), ["later", "t"])
    }
  }
})
