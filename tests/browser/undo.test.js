// Taking back one's own edits: what is one step, what of it is left beside others' edits, only what
// happened in a part, and on through the end of the host in which it was made.

import assert from "node:assert/strict"
import { after, test } from "node:test"
import { until } from "../interop/lib/wait.js"
import { becomes, create, find, open as openIn, show } from "./lib/doc.js"
import { random } from "./lib/random.js"
import { story } from "./lib/world.js"

const { Counter, mark, Repo, splice } = await import("../../wasm/dist/node.js")

const repo = await Repo.open({ storage: "memory" })
after(() => repo.shutdown())

const can = (handle, place) => Object.values(handle.undoable(place && { in: place }))

/** Two people's copies of a document, and what merges them: into the first one. */
async function two(contents) {
  const ann = await repo.create(contents)
  const bob = await ann.clone()
  return { ann, bob, merge: () => ann.merge(bob) }
}

/** What happens within has its time. */
function at(ms, action) {
  const { now } = Date
  Date.now = () => ms
  try {
    action()
  } finally {
    Date.now = now
  }
}

test("each change is a step, and so is what was typed in one go in one text", async () => {
  const doc = await repo.create({ list: [], text: "", other: "" })
  const type = (ms, name, text) => at(ms, () => doc.change(d => splice(d, [name], d[name].length, 0, text)))
  at(0, () => doc.change(d => d.list.push("a")))
  at(300, () => doc.change(d => d.list.push("b")))
  type(400, "text", "o")
  type(800, "text", "n")
  type(1200, "text", "e")
  type(1800, "text", " two")
  type(1900, "other", "x")
  type(2000, "text", "!")
  const steps = []
  while (await doc.undo()) steps.push(JSON.stringify(doc.doc()))
  assert.deepEqual(steps.map(JSON.parse), [
    { list: ["a", "b"], text: "one two", other: "x" },
    { list: ["a", "b"], text: "one two", other: "" },
    { list: ["a", "b"], text: "one", other: "" },
    { list: ["a", "b"], text: "", other: "" },
    { list: ["a"], text: "", other: "" },
    { list: [], text: "", other: "" },
  ])
  for (let left = steps.length; left > 0; left--) assert.equal(await doc.redo(), "all")
  assert.deepEqual(doc.doc(), { list: ["a", "b"], text: "one two!", other: "x" })
  assert.deepEqual(can(doc), [true, false])
})

test("changes of one name are one step, and those of none are never taken back", async () => {
  const doc = await repo.create({ x: 0, y: 0, seen: 0 })
  doc.change(d => (d.y = 1))
  for (let x = 1; x < 5; x++) {
    doc.change(d => (d.x = x), { undo: "drag 1" })
    doc.change(d => (d.seen = x), { undo: false })
  }
  doc.change(d => (d.x = 9), { undo: "drag 2" })
  assert.equal(await doc.undo(), "all")
  assert.deepEqual(doc.doc(), { x: 4, y: 1, seen: 4 })
  doc.change(d => (d.seen = 5), { undo: false })
  assert.deepEqual(can(doc), [true, true], "what a program does by itself ends no redo")
  assert.equal(await doc.undo(), "all")
  assert.deepEqual(doc.doc(), { x: 0, y: 1, seen: 5 })
  assert.equal(await doc.redo(), "all")
  assert.equal(await doc.redo(), "all")
  assert.deepEqual(doc.doc(), { x: 9, y: 1, seen: 5 })
  for (const undo of [true, 5, null, ["a"]]) {
    assert.throws(() => doc.change(d => (d.x = 0), { undo }), /the option undo of a change is false or a name/)
  }
  assert.equal(doc.doc().x, 9)
})

test("who listens hears whenever there is more or less to take back, and it is so by then", async () => {
  const doc = await repo.create({ n: 0 })
  const told = []
  doc.on("undoable", undoable => {
    assert.deepEqual(undoable, doc.undoable())
    told.push(Object.values(undoable))
  })
  doc.change(d => (d.n = 1))
  doc.change(d => (d.n = 1))
  assert.deepEqual(told.splice(0), [[true, false]], "at once, and not of a change that changes nothing")
  const undone = doc.undo()
  assert.deepEqual(told.splice(0), [[false, true]])
  await undone
  await doc.redo()
  assert.deepEqual(told.splice(0), [[true, false]])
})

test("of a step it is said what is left, and one of which nothing is left is passed over", async () => {
  const { ann, bob, merge } = await two({ title: "t", list: ["a", "b"], text: "one", card: { text: "x" } })
  ann.change(d => (d.n = 1))
  ann.change(d => d.list.push("c", "d"))
  ann.change(d => (d.title = "ann's"))
  ann.change(d => splice(d, ["card", "text"], 1, 0, "yz"))
  await bob.merge(ann)
  bob.change(d => d.list.splice(2, 1))
  bob.change(d => (d.title = "bob's"))
  bob.change(d => delete d.card)
  await bob.undo()
  assert.deepEqual(bob.doc().card, { text: "xyz" }, "another object by now")
  await merge()
  const events = []
  ann.on("undoable", ({ canUndo }) => events.push(canUndo))
  assert.equal(await ann.undo(), "part")
  assert.deepEqual(ann.doc(), { title: "bob's", list: ["a", "b"], text: "one", card: { text: "xyz" }, n: 1 })
  assert.equal(await ann.redo(), "all")
  assert.deepEqual(ann.doc().list, ["a", "b", "d"])
  assert.equal(await ann.undo(), "all")
  assert.equal(await ann.undo(), "all")
  assert.deepEqual(ann.doc(), { title: "bob's", list: ["a", "b"], text: "one", card: { text: "xyz" } })
  assert.equal(await ann.undo(), false)
  // What nobody shows is not written to.
  const before = await ann.heads()
  ann.change(d => (d.x = 1), { undo: false })
  assert.equal((await ann.history()).filter(({ deps }) => deps.join() === before.join()).length, 1)
})

test("only what happened in a part is taken back, wherever that is by now", async () => {
  const doc = await repo.create({ title: "", cards: [{ text: "a", tags: [] }, { text: "b", tags: [] }] })
  const card = doc.place(["cards", 1])
  const text = doc.place(["cards", 1, "text"])
  doc.change(d => splice(d, ["cards", 1, "text"], 1, 0, "!"))
  doc.change(d => d.cards[1].tags.push("new"))
  doc.change(d => (d.title = "t"))
  doc.change(d => splice(d, ["cards", 0, "text"], 1, 0, "?"))
  doc.change(d => {
    d.cards[0].done = true
    d.cards[1].done = true
  })
  doc.change(d => d.cards.unshift({ text: "first", tags: [] }))
  assert.deepEqual([can(doc, card), can(doc, text), can(doc, ["cards", 0])], [[true, false], [true, false], [false, false]])
  assert.equal(await doc.undo({ in: card }), "all")
  assert.deepEqual(doc.doc().cards[2], { text: "b!", tags: [], done: true })
  assert.equal(await doc.undo({ in: text }), "all")
  assert.deepEqual(doc.doc().cards[2], { text: "b", tags: [], done: true })
  assert.equal(await doc.undo({ in: card }), false, "both cards were done in one step")
  assert.deepEqual([can(doc, card), can(doc, text)], [[false, true], [false, true]])
  // What happens elsewhere ends no redo there.
  doc.change(d => (d.title = "u"))
  assert.equal(await doc.redo({ in: text }), "all")
  assert.deepEqual(doc.doc().cards[2], { text: "b!", tags: [], done: true })
  assert.equal(await doc.redo({ in: card }), "all")
  assert.deepEqual(doc.doc().cards[2], { text: "b!", tags: ["new"], done: true })
  await doc.undo({ in: card })
  doc.change(d => d.cards[2].tags.push("else"))
  assert.deepEqual(can(doc, card), [true, false], "but what happens there does")
  // All in order, without a part.
  for (let steps = 5; steps > 0; steps--) assert.equal(await doc.undo(), "all")
  doc.change(d => d.cards.splice(1, 1))
  doc.change(d => d.cards.splice(0, d.cards.length))
  assert.deepEqual([can(doc, card), await doc.undo({ in: card })], [[false, false], false], "it is gone")
})

test("what came back is the part that it was", async () => {
  const doc = await repo.create({ cards: [{ text: "a" }] })
  doc.change(d => splice(d, ["cards", 0, "text"], 1, 0, "bc"))
  doc.change(d => d.cards.splice(0, 1))
  assert.equal(await doc.undo(), "all")
  assert.equal(await doc.undo({ in: ["cards", 0, "text"] }), "all")
  assert.deepEqual(doc.doc(), { cards: [{ text: "a" }] })
  assert.equal(await doc.redo({ in: ["cards", 0] }), "all")
  assert.deepEqual(doc.doc(), { cards: [{ text: "abc" }] })
})

test("what was typed is found again in a long text that was deleted and came back", async () => {
  for (const length of [100, 1000, 3000]) {
    const doc = await repo.create({ text: "", card: { text: "" } })
    for (const path of [["text"], ["card", "text"]]) {
      for (let n = 0; n < 5; n++) doc.change(d => splice(d, path, n * length, 0, "abc\u{1F600}".repeat(length / 5).slice(0, length)), { undo: `${path} ${n}` })
    }
    doc.change(d => splice(d, ["text"], 0, 5 * length, "x"))
    doc.change(d => (d.card = "gone"))
    doc.change(d => delete d.text)
    const [begin, all] = [length, 5 * length]
    const lengths = async () => {
      const { text, card } = doc.doc()
      return [text?.length, card.text?.length]
    }
    const seen = []
    while (await doc.undo()) seen.push(await lengths())
    assert.deepEqual(seen, [
      [1, undefined], [1, all], [all, all],
      ...[4, 3, 2, 1, 0].map(n => [all, n * begin]), ...[4, 3, 2, 1, 0].map(n => [n * begin, 0]),
    ], `in runs of ${length}`)
    for (const _ of seen) assert.equal(await doc.redo(), "all")
    assert.deepEqual(doc.doc(), { card: "gone" })
    for (const _ of seen) assert.equal(await doc.undo(), "all")
    assert.deepEqual(doc.doc(), { text: "", card: { text: "" } })
  }
})

test("putting a part back is a step there, or none", async () => {
  const doc = await repo.create({ n: 0, card: { text: "old" } })
  const heads = await doc.heads()
  doc.change(d => (d.card.text = "new"))
  doc.change(d => (d.n = 1))
  const restored = doc.restore(["card"], heads)
  assert.deepEqual(can(doc, ["card"]), [true, false])
  await restored
  assert.equal(doc.doc().card.text, "old")
  assert.equal(await doc.undo({ in: ["card"] }), "all")
  assert.equal(doc.doc().card.text, "new")
  await doc.restore(["card"], heads, { undo: false })
  assert.equal(await doc.undo(), "all")
  assert.deepEqual(doc.doc(), { n: 0, card: { text: "old" } })
  // Taken back before it is done, it is done and taken back.
  doc.change(d => (d.card.text = "newer"), { undo: false })
  assert.deepEqual(await Promise.all([doc.restore(["card"], heads), doc.undo({ in: ["card"] })]), [undefined, "all"])
  assert.equal(doc.doc().card.text, "newer")
  assert.equal(await doc.redo({ in: ["card"] }), "all")
  assert.equal(doc.doc().card.text, "old")
  assert.equal(await doc.undo({ in: ["card"] }), "all")
  await assert.rejects(doc.restore(["card"], [5]), /heads are/)
  // One that changes nothing is none.
  await doc.restore(["card"], await doc.heads())
  assert.deepEqual(can(doc), [true, true])
})

test("what is nested as deep as it may be is deleted, and comes back as far as the stack leads", async () => {
  const nested = (depth, inner) => Array.from({ length: depth }).reduce(value => ({ in: value }), inner)
  const depthOf = value => (value?.in === undefined ? 0 : 1 + depthOf(value.in))
  for (const [depth, back] of [[150, 150], [900, 200]]) {
    const doc = await repo.create({ deep: nested(depth, { end: 1 }), list: [[nested(depth, 1)]] })
    doc.change(d => delete d.deep)
    doc.change(d => d.list.splice(0, 1))
    assert.deepEqual(doc.doc(), { list: [] })
    for (let steps = 2; steps > 0; steps--) assert.equal(await doc.undo(), "all")
    assert.equal(Math.min(depthOf(doc.doc().deep), 200), back - (depth > 200 ? 1 : 0))
    for (let steps = 2; steps > 0; steps--) assert.equal(await doc.redo(), "all")
    assert.deepEqual(doc.doc(), { list: [] })
  }
})

test("the last thousand steps are kept", async () => {
  const doc = await repo.create({ n: 0 })
  for (let n = 1; n <= 1100; n++) doc.change(d => (d.n = n))
  let steps = 0
  while (await doc.undo()) steps += 1
  assert.deepEqual([steps, doc.doc().n], [1000, 100])
})

test("what is kept is every kind of value", async () => {
  const contents = {
    values: [null, true, -1, 2 ** 53 - 1, -(2 ** 53 - 1), 0.5, Infinity, NaN, "", "\u{1F600}\0é", 2n ** 62n],
    date: new Date(-5), bytes: new Uint8Array([0, 255]), counter: new Counter(-3), map: { "": { list: [[], {}] } },
    text: "a\u{1F600}b".repeat(300),
  }
  const doc = await repo.create(contents)
  doc.change(d => mark(d, ["text"], { start: 0, end: 4 }, "bold", true))
  const before = doc.doc()
  const marks = await doc.marks(["text"])
  assert.equal(marks.length, 1)
  doc.change(d => {
    for (const key of Object.keys(d)) delete d[key]
  })
  doc.change(d => (d.n = 1))
  for (let steps = 2; steps > 0; steps--) assert.equal(await doc.undo(), "all")
  assert.deepEqual(doc.doc(), before)
  assert.deepEqual(await doc.marks(["text"]), marks)
  for (let steps = 2; steps > 0; steps--) assert.equal(await doc.redo(), "all")
  assert.deepEqual(doc.doc(), { n: 1 })
  for (let steps = 2; steps > 0; steps--) assert.equal(await doc.undo(), "all")
  assert.deepEqual(doc.doc(), contents)
  assert.equal(await doc.undo(), "all", "of the mark")
})

const seed = Number(process.env.RECONVERGE_SEED ?? Math.floor(Math.random() * 2 ** 32))

/** One random edit. Gives the key of the part in which it was made. */
function edit(doc, pick, who) {
  const part = `part ${pick(3)}`
  doc.change(d => {
    const { text, list } = d[part]
    const kind = pick(6)
    if (kind < 2) splice(d, [part, "text"], pick(text.length + 1), Math.min(pick(3), pick(text.length + 1)), who.repeat(pick(4)))
    else if (kind === 2 && pick(4) === 0) splice(d, [part, "text"], 0, text.length, `${who.repeat(600)}!`)
    else if (kind === 2) list.splice(pick(list.length + 1), pick(2), ...Array.from({ length: pick(3) }, (_, i) => ({ by: who, i })))
    else if (kind === 3 && list.length > 0) list[pick(list.length)].n = pick(100)
    else if (kind === 4) d[part].count.increment(pick(5))
    else d[part].value = `${who} ${pick(100)}`
  }, pick(4) === 0 ? { undo: `${part} ${pick(2)}` } : {})
  return part
}

const parts = () => Object.fromEntries([0, 1, 2].map(n => [`part ${n}`, { text: "some text", list: [{ by: "", i: 0 }], count: new Counter(0), value: "" }]))

test("all steps back and forth again come to the same, and those of a part change nothing else", async t => {
  t.diagnostic(`RECONVERGE_SEED=${seed}`)
  const pick = random(seed)
  for (let round = 0; round < 50; round++) {
    const doc = await repo.create(parts())
    const begin = doc.doc()
    for (let edits = 1 + pick(20); edits > 0; edits--) {
      const part = edit(doc, pick, "a")
      if (round < 20 || pick(6) > 0) continue
      const anew = pick(2) === 0 ? { ...parts()[part], text: doc.doc()[part].text } : parts()[part]
      doc.change(d => delete d[part])
      doc.change(d => (d[part] = anew))
    }
    const end = doc.doc()
    let steps = 0
    while (await doc.undo()) steps += 1
    assert.deepEqual(doc.doc(), begin, `round ${round}`)
    for (; steps > 0; steps--) assert.equal(await doc.redo(), "all")
    assert.deepEqual(doc.doc(), end, `round ${round}`)
    // What was made anew is another part.
    if (round >= 20) continue
    const part = `part ${pick(3)}`
    while (await doc.undo({ in: [part] }));
    assert.deepEqual(doc.doc(), { ...end, [part]: begin[part] }, `round ${round}`)
    while (await doc.redo({ in: [part] }));
    assert.deepEqual(doc.doc(), end, `round ${round}`)
  }
})

test("very many elements come back where they were, among those of others", async () => {
  const kinds = [i => i, i => `${i}`, i => ({ i, tags: [i] }), i => [i, [i]], i => new Counter(i), () => new Date(0)]
  const all = Array.from({ length: 600 }, (_, i) => kinds[i % kinds.length](i))
  const { ann, bob, merge } = await two({ list: all.slice(0, 400) })
  // Of several changes, and of several people, so that their names do not all follow each other.
  ann.change(d => d.list.push(...all.slice(400, 500)), { undo: false })
  bob.change(d => d.list.push("bob's"))
  await merge()
  ann.change(d => d.list.push(...all.slice(500)), { undo: false })
  const before = ann.doc()
  for (let round = 0; round < 2; round++) {
    ann.change(d => d.list.splice(0, d.list.length))
    await bob.merge(ann)
    bob.change(d => d.list.push("later"))
    await merge()
    assert.equal(await ann.undo(), "all")
    const list = ann.doc().list.filter(value => value !== "later")
    assert.deepEqual({ list }, before)
    ann.change(d => d.list.splice(d.list.indexOf("later"), 1), { undo: false })
  }
  ann.change(d => (d.list[2].tags[0] = "x"))
  assert.equal(await ann.undo({ in: ["list", 2] }), "all")
  assert.deepEqual(ann.doc(), before)
})

test("a mark is taken away where it is one's own", async () => {
  const { ann, bob, merge } = await two({ text: "0123456789" })
  const bold = (value, start, end) => d => mark(d, ["text"], { start, end, expand: "none" }, "bold", value)
  const marks = async () => (await ann.marks(["text"])).map(({ value, start, end }) => [value, start, end])
  ann.change(bold("before", 0, 2), { undo: false })
  ann.change(bold("ann's", 0, 6))
  await bob.merge(ann)
  bob.change(bold("bob's", 4, 8))
  await merge()
  assert.equal(await ann.undo(), "part")
  assert.deepEqual(await marks(), [["before", 0, 2], ["bob's", 4, 8]])
  assert.equal(await ann.redo(), "all")
  assert.deepEqual(await marks(), [["ann's", 0, 4], ["bob's", 4, 8]])
  // What was unmarked is marked again where nobody marked it since.
  ann.change(d => mark(d, ["text"], { start: 0, end: 8 }, "bold", null))
  await bob.merge(ann)
  bob.change(bold("bob's", 1, 2))
  await merge()
  assert.equal(await ann.undo(), "part")
  assert.deepEqual(await marks(), [["ann's", 0, 1], ["bob's", 1, 2], ["ann's", 2, 4], ["bob's", 4, 8]])
})

test("what comes back of a text is marked as it was, and what was beside a mark is not", async () => {
  const text = "h😀llo"
  for (const expand of ["none", "before", "after", "both"]) {
    for (let start = 0; start < text.length; start++) {
      for (let end = start + 1; end <= text.length; end++) {
        const doc = await repo.create({ text })
        const marks = async () => (await doc.marks(["text"])).map(({ name, value, start, end }) => [name, value, start, end])
        doc.change(d => {
          mark(d, ["text"], { start: 1, end: 4, expand }, "bold", true)
          mark(d, ["text"], { start: 3, end: 6, expand }, "link", "a")
          mark(d, ["text"], { start: 4, end: 5, expand }, "link", "b")
        })
        const [before, where] = [await marks(), `${[expand, start, end]}`]
        doc.change(d => splice(d, ["text"], start, end - start, "new"))
        const after = await marks()
        for (let again = 0; again < 2; again++) {
          assert.equal(await doc.undo(), "all")
          assert.deepEqual(await marks(), before, where)
          assert.equal(await doc.redo(), "all")
          assert.deepEqual(await marks(), after, where)
        }
        for (let steps = 2; steps > 0; steps--) assert.equal(await doc.undo(), "all", where)
        assert.deepEqual(await marks(), [], where)
        doc.release()
      }
    }
  }
})

test("what is typed beside what came back is marked as if it had not been away", async () => {
  for (const [start, end, typed, expected] of [[3, 5, 5, [1, 3]], [3, 5, 3, [1, 4]], [2, 5, 5, [1, 3]], [0, 1, 0, [2, 4]], [1, 2, 2, [1, 4]]]) {
    const doc = await repo.create({ text: "hello" })
    doc.change(d => mark(d, ["text"], { start: 1, end: 3 }, "bold", true))
    doc.change(d => splice(d, ["text"], start, end - start))
    await doc.undo()
    doc.change(d => splice(d, ["text"], typed, 0, "!"))
    const marks = await doc.marks(["text"])
    assert.deepEqual(marks, [{ name: "bold", value: true, start: expected[0], end: expected[1] }], `${[start, end, typed]}`)
  }
})

test("what comes back is where it was, whoever removed what was beside it", async () => {
  const all = "abcdef"
  for (let mine = 0; mine < 6; mine++) {
    for (let my = 1; mine + my <= 6; my++) {
      for (let theirs = 0; theirs < 6; theirs++) {
        for (let their = 1; theirs + their <= 6; their++) {
          const { ann, bob, merge } = await two({ text: all, list: [...all] })
          ann.change(d => {
            splice(d, ["text"], mine, my)
            d.list.splice(mine, my)
          })
          bob.change(d => {
            splice(d, ["text"], theirs, their)
            d.list.splice(theirs, their)
          })
          await merge()
          assert.notEqual(await ann.undo(), false)
          const isLeft = at => (at >= mine && at < mine + my) || at < theirs || at >= theirs + their
          const left = [...all].filter((_, at) => isLeft(at))
          assert.deepEqual(ann.doc(), { text: left.join(""), list: left }, `${[mine, my, theirs, their]}`)
          assert.ok(!ann.canUndo)
        }
      }
    }
  }
})

test("what others did stays, and only what one did goes", async t => {
  t.diagnostic(`RECONVERGE_SEED=${seed}`)
  const pick = random(seed ^ 1)
  for (let round = 0; round < 30; round++) {
    const { ann, bob, merge } = await two(parts())
    for (let turns = 1 + pick(6); turns > 0; turns--) {
      for (let edits = pick(4); edits > 0; edits--) edit(ann, pick, "a")
      for (let edits = pick(4); edits > 0; edits--) edit(bob, pick, "b")
      await merge()
      if (pick(2) === 0) await bob.merge(ann)
      if (pick(3) === 0) await ann.undo({ in: [`part ${pick(3)}`] })
    }
    const letters = (doc, who) => Object.values(doc).map(({ text }) => text.split(who).length - 1)
    const before = ann.doc()
    while (await ann.undo());
    const now = ann.doc()
    // Those that she deleted come back, too.
    letters(now, "b").forEach((count, part) => assert.ok(count >= letters(before, "b")[part], `round ${round}: bob's letters`))
    assert.deepEqual(letters(now, "a"), [0, 0, 0], `round ${round}: ann's letters`)
    for (const [part, { list, value }] of Object.entries(now)) {
      assert.ok(list.every(({ by }) => by !== "a"), `round ${round}: ann's elements of ${part}`)
      assert.doesNotMatch(value, /^a/, `round ${round}: ann's value of ${part}`)
    }
  }
})

story("closing the tab with the engine takes nothing from what another one can take back", async world => {
  const site = await world.site()
  const context = await world.context()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  await openIn(first, {})
  const url = await create(first, { text: "one", list: [] })
  await openIn(second, {})
  await find(second, url)
  await second.evaluate(async () => {
    window.told = []
    doc.change(d => d.list.push("a"))
    doc.change(d => d.list.push("b"))
    doc.change(d => reconverge.splice(d, ["text"], 3, 0, " two"))
    doc.change(d => d.list.splice(0, 2))
    await doc.whenSynced({ level: "local" })
    await doc.undo()
    doc.on("undoable", undoable => told.push(undoable))
  })
  await first.close()
  await until("the next host", () => second.evaluate(() => doc.whenSynced({ level: "local" }).then(() => true)))
  assert.deepEqual(await second.evaluate(() => [told, doc.undoable()]), [[], { canUndo: true, canRedo: true }])
  const take = (...directions) => second.evaluate(async all => Promise.all(all.map(each => doc[each]())), directions)
  assert.deepEqual(await take("redo", "undo", "undo"), ["all", "all", "all"])
  await becomes(second, { list: ["a", "b"], text: "one" })
  assert.deepEqual(await take("undo"), ["all"])
  await becomes(second, { list: ["a"], text: "one" })
  assert.deepEqual(await take("redo", "redo", "undo"), ["all", "all", "all"])
  assert.deepEqual(await show(second), { list: ["a", "b"], text: "one" })
})
