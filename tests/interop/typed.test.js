// Documents as values of a Rust type (target/release/typed-edits, `reconverge::typed`), and as what
// stock Automerge and our package make of them: made on one side, edited on the other.

import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import * as Automerge from "@automerge/automerge"
import * as ours from "../../wasm/dist/node.js"

const TYPED =
  process.env.TYPED_EDITS_BIN ??
  fileURLToPath(new URL("../../target/release/typed-edits", import.meta.url))

function rust(words, saved) {
  const ended = spawnSync(TYPED, words, { input: saved, maxBuffer: 1 << 24 })
  assert.equal(ended.status, 0, String(ended.stderr))
  return ended.stdout
}

/** What Rust makes of a document: `{ Ok }`, or `{ Err }` with the reason. */
const asValue = saved => JSON.parse(rust(["check"], saved))

/** All there is, as each of the two makes it. */
const everything = ({ Counter, ImmutableString }) => ({
  title: "bread and milk",
  whole: 7,
  below: -7,
  large: 2n ** 60n,
  share: 0.5,
  even: 2,
  done: false,
  note: "soon",
  raw: new Uint8Array([1, 2]),
  votes: new Counter(3),
  due: new Date(86_400_000),
  code: new ImmutableString("A1"),
  state: "New",
  shape: { kind: "circle", radius: 1.5 },
  pair: [1, "one"],
  tags: ["red", "blue"],
  lines: [
    { id: 1, article: "lamp", count: 1 },
    { id: 2, article: "shade", count: 2 },
  ],
  totals: { a: 1, b: -2 },
})

/** The same edits as `typed-edits edit` makes, without those of what is not in `everything`. */
function edit(doc, { splice, Counter, ImmutableString }) {
  splice(doc, ["title"], 10, 0, "some ")
  doc.whole = 8
  doc.below = -8
  doc.large = 2n ** 60n + 1n
  doc.share = 0.25
  doc.even = 4
  doc.done = true
  doc.note = null
  doc.missing = "found"
  doc.raw = new Uint8Array([1, 2, 3])
  doc.votes.increment(2)
  doc.due = new Date(86_400_001)
  doc.code = new ImmutableString("B2")
  doc.state = "Paid"
  doc.shape = { kind: "line" }
  doc.pair[0] = 2
  doc.tags.splice(1, 0, "green")
  doc.lines[1].count = 5
  doc.lines.push({ id: 3, article: "bulb", count: 3 })
  delete doc.totals.a
  doc.totals.c = 3
}

/** `everything` in JSON, as serde_json has it. */
const made = {
  title: "bread and milk",
  whole: 7,
  below: -7,
  large: 2 ** 60,
  share: 0.5,
  even: 2,
  done: false,
  note: "soon",
  missing: null,
  raw: [1, 2],
  votes: 3,
  due: 86_400_000,
  code: "A1",
  state: "New",
  shape: { kind: "circle", radius: 1.5 },
  pair: [1, "one"],
  tags: ["red", "blue"],
  lines: [
    { id: 1, article: "lamp", count: 1 },
    { id: 2, article: "shade", count: 2 },
  ],
  totals: { a: 1, b: -2 },
}

const edited = {
  ...made,
  title: "bread and some milk",
  whole: 8,
  below: -8,
  large: 2 ** 60,
  share: 0.25,
  even: 4,
  done: true,
  note: null,
  missing: "found",
  raw: [1, 2, 3],
  votes: 5,
  due: 86_400_001,
  code: "B2",
  state: "Paid",
  shape: { kind: "line" },
  pair: [2, "one"],
  tags: ["red", "green", "blue"],
  lines: [
    { id: 1, article: "lamp", count: 1 },
    { id: 2, article: "shade", count: 5 },
    { id: 3, article: "bulb", count: 3 },
  ],
  totals: { b: -2, c: 3 },
}

/** What JavaScript shows, with its kinds, of which JSON has no words. */
const kinds = doc =>
  Object.fromEntries(
    Object.entries(doc).map(([key, value]) => [
      key,
      value?.constructor?.name === "Object" || Array.isArray(value)
        ? structuredClone(value)
        : [value?.constructor?.name, String(value)],
    ]),
  )

test("stock Automerge shows what Rust makes and edits as what it makes itself", () => {
  const doc = Automerge.load(rust(["make"]))
  const own = Automerge.from(everything(Automerge))
  const { missing, ...rest } = kinds(doc)
  assert.deepEqual(missing, [undefined, "null"])
  assert.deepEqual(rest, kinds(own))

  const both = [doc, own].map(doc => Automerge.load(rust(["edit"], Automerge.save(doc))))
  const here = Automerge.change(own, doc => edit(doc, Automerge))
  for (const doc of both) assert.deepEqual(kinds(doc), kinds(here))
})

test("Rust reads what stock Automerge makes and edits, of documents of both", () => {
  const own = Automerge.from(everything(Automerge))
  assert.deepEqual(asValue(Automerge.save(own)), { Ok: made })
  for (const doc of [own, Automerge.load(rust(["make"]))]) {
    const here = Automerge.change(doc, doc => edit(doc, Automerge))
    assert.deepEqual(asValue(Automerge.save(here)), { Ok: edited })
  }
})

test("texts that Rust makes are spliced by stock clients, and edits of both merge", () => {
  const doc = Automerge.load(rust(["make"]))
  const there = Automerge.load(rust(["title", "bread and some milk"], Automerge.save(doc)))
  const here = Automerge.change(doc, doc => {
    Automerge.splice(doc, ["title"], 0, 5, "rolls")
    Automerge.splice(doc, ["lines", 0, "article"], 4, 0, "s")
    doc.votes.increment(1)
  })
  const merged = Automerge.merge(here, there)
  assert.equal(merged.title, "rolls and some milk")
  assert.equal(merged.lines[0].article, "lamps")
})

test("an update of one field leaves conflicts and unknown fields of stock clients", () => {
  const doc = Automerge.from({ ...everything(Automerge), colour: "green" })
  let [here, there] = [Automerge.clone(doc), Automerge.clone(doc)]
  here = Automerge.change(here, doc => (doc.note = "here"))
  there = Automerge.change(there, doc => (doc.note = "there"))
  here = Automerge.merge(here, there)
  const before = Automerge.getConflicts(here, "note")
  assert.equal(Object.keys(before).length, 2)
  const after = Automerge.load(rust(["title", "another title"], Automerge.save(here)))
  assert.equal(after.title, "another title")
  assert.deepEqual(Automerge.getConflicts(after, "note"), before)
  assert.equal(after.colour, "green")
})

test("what is of another type is named", () => {
  const doc = Automerge.from(everything(Automerge))
  const wrong = Automerge.change(doc, doc => (doc.lines[1].article = 3))
  assert.deepEqual(asValue(Automerge.save(wrong)), {
    Err: "lines[1].article: the number 3, but a string is expected",
  })
})

test("our package shows, makes and edits the same", async () => {
  const repo = await ours.Repo.open({ storage: "memory" })
  try {
    const own = await repo.create(everything(ours))
    assert.deepEqual(asValue(await repo.export(own.url)), { Ok: made })
    const rusts = await repo.import(rust(["make"]))
    const { missing, ...rest } = kinds(rusts.doc())
    assert.deepEqual(missing, [undefined, "null"])
    assert.deepEqual(rest, kinds(own.doc()))

    const there = await repo.import(rust(["edit"], await repo.export(own.url)))
    for (const handle of [own, rusts]) {
      handle.change(doc => edit(doc, ours))
      await repo.flush()
      assert.deepEqual(asValue(await repo.export(handle.url)), { Ok: edited })
      assert.deepEqual(kinds(handle.doc()), kinds(there.doc()))
    }
  } finally {
    await repo.shutdown()
  }
})
