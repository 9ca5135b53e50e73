// What a stock client makes is never taken out: whatever types, values and depth there are, the
// check finds no fault with it, in any mode. RECONVERGE_CHECK_SEED repeats one seed.

import assert from "node:assert/strict"
import * as Automerge from "@automerge/automerge"
import { converged } from "./lib/client.js"
import { story } from "./lib/world.js"

const SEEDS = process.env.RECONVERGE_CHECK_SEED ? [Number(process.env.RECONVERGE_CHECK_SEED)] : [1, 2, 3, 4, 5, 6]
const DOCUMENTS = 4
const ROUNDS = 12
const DEPTH = 1_500

/** Numbers from 0 to 1 that a seed repeats (mulberry32). */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const pick = (next, list) => list[Math.floor(next() * list.length)]

const VALUES = [
  () => NaN,
  () => 0 / 0,
  () => -0,
  () => Infinity,
  () => -Infinity,
  () => Number.MIN_VALUE,
  () => Number.MAX_SAFE_INTEGER,
  () => Number.MAX_SAFE_INTEGER + 2,
  () => 2n ** 63n - 1n,
  () => null,
  () => true,
  () => "",
  () => "e\u0301 👩‍👩‍👧 \u0000 \ufffc",
  () => new Date(-1),
  () => new Date(8.64e15),
  () => new Uint8Array([0, 255]),
  () => new Automerge.Counter(-3),
  () => new Automerge.ImmutableString("fixed"),
  () => new Automerge.Float64(3),
  () => new Automerge.Uint(7),
]

function edit(next, doc) {
  const value = () => (next() < 0.2 ? { inner: [pick(next, VALUES)()] } : pick(next, VALUES)())
  const key = pick(next, ["a", "b", "__proto_", "length", "日本"])
  const at = Math.floor(next() * (doc.list.length + 1))
  switch (Math.floor(next() * 8)) {
    case 0:
      return delete doc[key]
    case 1:
      return doc.list.splice(at, 0, value(), value())
    case 2:
      return doc.list.length > 0 && doc.list.splice(Math.min(at, doc.list.length - 1), 1)
    case 3:
      return doc.hits.increment(Math.floor(next() * 9) - 4)
    case 4:
      return Automerge.splice(doc, ["text"], 0, Math.min(doc.text.length, 1), "né👍")
    case 5:
      return doc.text.length > 1 && Automerge.mark(doc, ["text"], { start: 0, end: 1, expand: "both" }, "m", value.name)
    default:
      return (doc[key] = value())
  }
}

const same = (a, b) => assert.deepEqual(Automerge.toJS(a.doc()), Automerge.toJS(b.doc()))

for (const seed of SEEDS) {
  story(`nothing that stock clients make is taken out (RECONVERGE_CHECK_SEED=${seed})`, async world => {
    const next = random(seed)
    const inline = seed % 2 === 0
    const relay = await world.relay({ arguments: inline ? ["--verify", "inline"] : ["--verify-lag-s", "1"] })
    const alice = await world.client("alice", relay)
    const bob = await world.client("bob", relay)
    const documents = []
    for (let n = 0; n < DOCUMENTS; n++) {
      const first = { list: [], text: "", hits: new Automerge.Counter(0) }
      documents.push(await alice.share(first, bob))
    }
    for (let round = 0; round < ROUNDS; round++) {
      for (const handles of documents) {
        for (const handle of handles) handle.change(doc => edit(next, doc))
      }
      if (round % 4 === 3) {
        for (const [a, b] of documents) {
          await converged([a, b])
          await alice.saved(a)
        }
      }
    }
    // Another mode, and everything is checked before it is served.
    await relay.terminate()
    relay.arguments = ["--verify", "inline"]
    await relay.start()
    const fresh = await world.client("fresh", relay)
    for (const [a, b] of documents) {
      const found = await fresh.find(a.url)
      await converged([a, b, found])
      same(a, found)
      found.change(doc => (doc.after = NaN))
      await fresh.saved(found)
      await converged([a, b, found])
    }
    assert.doesNotMatch(relay.log, /taken out|refused|could not be checked/)
  })
}

for (const mode of ["later", "inline"]) {
  story(`a list linked ${DEPTH} levels deep is kept, with --verify ${mode}`, async world => {
    const flags = mode === "inline" ? ["--verify", "inline"] : ["--verify-lag-s", "1"]
    const relay = await world.relay({ arguments: flags })
    const alice = await world.client("alice", relay)
    const handle = alice.create({ depth: 0 })
    const tip = doc => {
      let node = doc
      while (node.next) node = node.next
      return node
    }
    for (let level = 0; level < DEPTH; level += 100) {
      handle.change(doc => {
        let node = tip(doc)
        for (let n = 0; n < 100; n++) node = (node.next = { depth: level + n })
      })
    }
    await alice.saved(handle)
    handle.change(doc => (doc.after = true))
    await alice.saved(handle)
    await relay.terminate()
    relay.arguments = ["--verify", "inline"]
    await relay.start()
    const fresh = await world.client("fresh", relay)
    const found = await fresh.find(handle.url)
    await converged([handle, found])
    assert.equal(found.doc().after, true)
    found.change(doc => (doc.later = true))
    await fresh.saved(found)
    assert.doesNotMatch(relay.log, /taken out|refused|could not be checked/)
  })
}
