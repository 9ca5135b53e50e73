// The package and stock automerge-repo in one page, on one document, through the relay.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { bundle } from "./lib/bundle.js"
import { story } from "./lib/world.js"

const script = bundle("pages/interop.js")

/** A page with `reconverge`, `stock`, and a repo of each as `repo` and `stockRepo`. */
async function both(world, relay) {
  const site = await world.site({ "/interop.js": await script })
  const page = await world.plain(site)
  await page.addScriptTag({ type: "module", url: "/interop.js" })
  await page.waitForFunction(() => window.stock !== undefined)
  await page.evaluate(async relay => {
    window.repo = await reconverge.Repo.open({ relay })
    window.stockRepo = stock.open(relay)
  }, relay?.url)
  return page
}

/** A document that both have, made by `side`: `ours` and `theirs` in the page. */
async function shared(page, side, initial) {
  await page.evaluate(
    async ([side, initial]) => {
      if (side === "ours") {
        window.ours = await repo.create(initial)
        await ours.whenSynced()
        window.theirs = await stockRepo.find(ours.url)
      } else {
        window.theirs = stockRepo.create(initial)
        window.ours = await findSoon(theirs.url)
      }
      // The relay may not have heard of a new document yet.
      async function findSoon(url) {
        for (let tries = 0; ; tries++) {
          try {
            return await repo.find(url)
          } catch (error) {
            if (error.code !== "unavailable" || tries > 100) throw error
          }
        }
      }
    },
    [side, initial]
  )
  await agree(page)
}

/** Runs edits at once: each a side and a function of a draft and either library. */
const edit = (page, ...edits) =>
  page.evaluate(
    edits => {
      for (const [side, source] of edits) window[side].change(stock.edit(side, source))
    },
    edits.map(([side, fn]) => [side, String(fn)])
  )

/** Waits until both ends show the same heads, and asserts that they show the same. Gives what. */
async function agree(page) {
  const ends = () => page.evaluate(() => stock.ends(ours, theirs))
  const equal = async () => {
    const now = await ends()
    return JSON.stringify(now.ours[2]) === JSON.stringify(now.theirs[2]) && now
  }
  const { ours, theirs } = await until("both to have the same heads", equal, { seen: ends })
  assert.deepEqual(ours, theirs)
  return ours[0]
}

const other = side => (side === "ours" ? "theirs" : "ours")

const INITIAL = { text: "hello world", list: ["a", "b", "c"], map: { inner: { n: 1 } } }

/** What one end does; the other must show it. Each begins with `INITIAL`. */
const EDITS = {
  text: (d, lib) => {
    lib.splice(d, ["text"], 5, 0, ", wide")
    lib.splice(d, ["text"], 0, 1, "H")
    lib.updateText(d, ["text"], d.text + "!")
  },
  lists: d => {
    d.list.push("d", { e: [1, 2, [3]] })
    d.list.unshift("first")
    d.list.splice(2, 2, "x", "y", "z")
    d.list[0] = ["replaced"]
  },
  "nested maps": d => {
    d.map.inner.deeper = { deepest: { list: [{ n: 1 }, { n: 2 }] } }
    d.map.inner.deeper.deepest.list[1].n = 3
    d.map["a key with spaces, dots. and ünïcode"] = {}
    d.map[""] = "the empty key"
  },
  counters: (d, lib) => {
    d.count = new lib.Counter(5)
    d.count.increment(3)
    d.count.decrement(10)
    d.list.push(new lib.Counter(-1))
  },
  "rich text": (d, lib) => {
    lib.mark(d, ["text"], { start: 0, end: 5, expand: "both" }, "bold", true)
    lib.mark(d, ["text"], { start: 3, end: 8, expand: "none" }, "link", "https://example.org")
    lib.mark(d, ["text"], { start: 6, end: 11, expand: "after" }, "size", 12)
    lib.splice(d, ["text"], 11, 0, " and more")
    lib.splice(d, ["text"], 0, 0, "so: ")
    lib.unmark(d, ["text"], { start: 5, end: 7, expand: "none" }, "bold")
  },
  blocks: (d, lib) => {
    lib.splitBlock(d, ["text"], 0, { type: "heading", parents: [], attrs: { level: 1 } })
    lib.splitBlock(d, ["text"], 6, { type: "paragraph", parents: [], attrs: {} })
    lib.updateBlock(d, ["text"], 6, { type: "quote", parents: ["list"], attrs: {} })
    lib.splitBlock(d, ["text"], 9, { type: "paragraph", parents: [], attrs: {} })
    lib.joinBlock(d, ["text"], 9)
  },
  dates: d => {
    d.dates = [new Date(0), new Date(-1), new Date(1732000000123), new Date(8.64e15)]
  },
  bytes: d => {
    d.bytes = { some: new Uint8Array([0, 1, 127, 128, 255]), none: new Uint8Array() }
  },
  scalars: d => {
    // Automerge's own drafts make 2^63 - 1 of whole numbers that are larger: not of ours.
    d.scalars = [null, true, false, 0, 1, -1, 0.5, -0.5, -1e-300, 1 / 3, 2 ** 31, -(2 ** 31) - 1]
    d.large = [2 ** 32, 2 ** 53 - 1, -(2 ** 53 - 1), Number.MIN_VALUE]
  },
  "fixed strings": (d, lib) => {
    d.fixed = new lib.ImmutableString("fixed \u{1F512}")
    d.list[1] = new lib.ImmutableString("also")
  },
  deletions: (d, lib) => {
    delete d.map.inner
    d.list.splice(0, 2)
    lib.splice(d, ["text"], 2, 5, "")
    d.gone = "soon"
    delete d.gone
  },
  emoji: (d, lib) => {
    const family = "\u{1F468}\u200D\u{1F469}\u200D\u{1F467}"
    lib.splice(d, ["text"], 5, 0, `\u{1F600}${family}e\u0301`)
    lib.splice(d, ["text"], 7, 0, "|")
    lib.splice(d, ["text"], 5, 2, "")
    d["\u{1F511}"] = family
  },
}

for (const side of ["ours", "theirs"]) {
  const name = side === "ours" ? "automerge-repo shows what the package" : "the package shows what automerge-repo"
  story(`${name} wrote: ${Object.keys(EDITS).join(", ")}`, async world => {
    const relay = await world.relay()
    const page = await both(world, relay)
    for (const [kind, fn] of Object.entries(EDITS)) {
      await shared(page, side, INITIAL)
      await edit(page, [side, fn])
      const once = await agree(page)
      assert.notDeepEqual(once, INITIAL, kind)
      // The other end goes on from what it was given.
      await edit(page, [other(side), (d, lib) => lib.splice(d, ["text"], d.text.length, 0, " (seen)")])
      const { text } = await agree(page)
      assert.ok(text.endsWith(" (seen)"), `${kind}: ${text}`)
    }
  }, { ms: 120_000 })
}

story("both ends make the same of the same edits", async world => {
  const relay = await world.relay()
  const page = await both(world, relay)
  for (const [kind, fn] of Object.entries(EDITS)) {
    const shown = []
    for (const side of ["ours", "theirs"]) {
      await shared(page, side, INITIAL)
      await edit(page, [side, fn])
      shown.push(await agree(page))
    }
    assert.deepEqual(shown[0], shown[1], kind)
  }
}, { ms: 120_000 })

story("a fixed string is one to automerge-repo, a text is none, and counters have its class", async world => {
  const relay = await world.relay()
  const page = await both(world, relay)
  await shared(page, "ours", {})
  await edit(page, ["ours", (d, lib) => Object.assign(d, { fixed: new lib.ImmutableString("f"), text: "t", n: new lib.Counter(1) })])
  await agree(page)
  const kinds = await page.evaluate(() => {
    const { fixed, text, n } = stock.Automerge.toJS(theirs.doc())
    return [stock.Automerge.isImmutableString(fixed), stock.Automerge.isImmutableString(text), stock.Automerge.isCounter(n)]
  })
  assert.deepEqual(kinds, [true, false, true])
})

story("integers beyond 2^53 and the kinds of numbers survive both ways", async world => {
  const relay = await world.relay()
  const page = await both(world, relay)
  await shared(page, "theirs", {})
  await edit(page, ["theirs", (d, lib) => {
    d.int = new lib.Int(-5)
    d.uint = new lib.Uint(7)
    d.float = new lib.Float64(3)
    d.big = [2n ** 60n, -(2n ** 63n), 2n ** 63n - 1n]
  }])
  const shown = await agree(page)
  assert.deepEqual([shown.int, shown.uint, shown.float], [-5, 7, 3])
  assert.deepEqual(shown.big[0], { integer: String(2n ** 60n) })
  await edit(page, ["ours", d => (d.back = [2n ** 62n, -(2n ** 62n), 9007199254740993n])])
  assert.deepEqual((await agree(page)).back, ["4611686018427387904", "-4611686018427387904", "9007199254740993"].map(integer => ({ integer })))
})

story("edits that both make at once are all there, in the same order at both ends", async world => {
  const relay = await world.relay()
  const page = await both(world, relay)
  await shared(page, "ours", { ...INITIAL, n: 0 })
  await edit(page, ["ours", (d, lib) => (d.count = new lib.Counter(10))])
  await agree(page)
  await edit(
    page,
    ["ours", d => d.count.increment(3)],
    ["theirs", d => d.count.increment(-5)],
    ["ours", d => d.count.increment(1)],
    ["ours", (d, lib) => lib.splice(d, ["text"], 5, 0, " ours")],
    ["theirs", (d, lib) => lib.splice(d, ["text"], 5, 0, " theirs")],
    ["ours", d => d.list.splice(1, 1, "ours")],
    ["theirs", d => d.list.splice(1, 1, "theirs")],
    ["ours", d => (d.n = 1)],
    ["theirs", d => (d.n = 2)],
    ["ours", d => (d.map.inner.ours = true)],
    ["theirs", d => delete d.map.inner],
    ["ours", (d, lib) => lib.mark(d, ["text"], { start: 0, end: 4, expand: "both" }, "bold", true)],
    ["theirs", (d, lib) => lib.mark(d, ["text"], { start: 2, end: 8, expand: "none" }, "bold", true)]
  )
  const { count, text, list, n, map } = await agree(page)
  assert.deepEqual(count, { counter: 9 })
  assert.equal(text.length, "hello world ours theirs".length)
  assert.deepEqual([...list].sort(), ["a", "c", "ours", "theirs"])
  assert.ok(n === 1 || n === 2)
  assert.deepEqual(map, {})
})

story("random edits on both sides end equal", async world => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))
  world.tell(`SEED=${seed}`)
  const relay = await world.relay()
  const page = await both(world, relay)
  await shared(page, "ours", { text: "", list: [], map: {} })
  await edit(page, ["ours", (d, lib) => (d.count = new lib.Counter())])
  await agree(page)
  for (let round = 0; round < 15; round++) {
    await page.evaluate(
      async seed => {
        let state = seed % 2147483646 + 1
        const random = n => (state = (state * 48271) % 2147483647) % n
        const pick = list => list[random(list.length)]
        const value = lib => pick([1, -2.5, null, true, "text", [1, ["x"]], { k: "v" }, new Date(5), new Uint8Array([1, 2]), new lib.ImmutableString("f")])
        const words = ["a", "bc", "\u{1F600}", "\u{1F469}\u200D\u{1F467}", "e\u0301", "\n", "öß"]
        for (let i = 0; i < 20; i++) {
          const side = pick(["ours", "theirs"])
          const lib = side === "ours" ? reconverge : stock.Automerge
          window[side].change(d => {
            for (let steps = 1 + random(3); steps > 0; steps--) {
              const place = random(d.text.length + 1)
              switch (random(9)) {
                case 0:
                case 1:
                case 2:
                  lib.splice(d, ["text"], place, 0, pick(words))
                  break
                case 3: {
                  // Whole characters only: half of one is each library's own affair.
                  const chars = [...d.text]
                  if (chars.length === 0) break
                  const from = random(chars.length)
                  lib.splice(d, ["text"], chars.slice(0, from).join("").length, chars[from].length, "")
                  break
                }
                case 4:
                  d.list.splice(random(d.list.length + 1), random(2), value(lib))
                  break
                case 5:
                  if (d.list.length > 0) d.list[random(d.list.length)] = value(lib)
                  break
                case 6:
                  d.map[pick(["x", "y", "z"])] = value(lib)
                  break
                case 7:
                  delete d.map[pick(["x", "y", "z"])]
                  break
                case 8:
                  d.count.increment(random(10) - 5)
              }
            }
          })
          if (random(4) === 0) await new Promise(resolve => setTimeout(resolve))
        }
      },
      seed + round * 7919
    )
    await agree(page)
  }
}, { ms: 120_000 })

story("a document that one made offline is found by the other", async world => {
  const relay = await world.relay()
  const page = await both(world, relay)
  const url = await page.evaluate(async () => {
    repo.goOffline()
    window.ours = await repo.create({ text: "made offline", n: 1 })
    ours.change(d => (d.n = 2))
    return ours.url
  })
  await page.evaluate(async url => {
    repo.goOnline()
    await ours.whenSynced()
    window.theirs = await stockRepo.find(url)
  }, url)
  assert.deepEqual(await agree(page), { n: 2, text: "made offline" })

  await page.evaluate(async () => {
    window.lonely = stock.open()
    window.theirs = lonely.create({ text: "theirs, offline", list: [1] })
    theirs.change(d => d.list.push(2))
  })
  await page.evaluate(relay => stock.connect(lonely, relay), relay.url)
  // Nobody tells when the relay has it.
  await until("the document to be found", () =>
    page.evaluate(async () => {
      try {
        window.ours = await repo.find(theirs.url)
        return true
      } catch (error) {
        if (error.code !== "unavailable") throw error
        return false
      }
    })
  )
  assert.deepEqual(await agree(page), { list: [1, 2], text: "theirs, offline" })
  await edit(page, ["ours", d => d.list.push(3)])
  assert.deepEqual((await agree(page)).list, [1, 2, 3])
})

story("messages reach the other library, in order", async world => {
  const relay = await world.relay()
  const page = await both(world, relay)
  await shared(page, "ours", { n: 1 })
  const messages = [{ n: 1 }, "text \u{1F600}", [1, null, true, -0.5], { bytes: [1, 2] }]
  await page.evaluate(() => {
    window.heard = { ours: [], theirs: [] }
    ours.on("ephemeral-message", ({ message, senderId }) => heard.ours.push([senderId, message]))
    theirs.on("ephemeral-message", ({ message, senderId }) => heard.theirs.push([senderId, message]))
  })
  await page.evaluate(messages => {
    for (const message of messages) {
      ours.broadcast(message)
      theirs.broadcast(message)
    }
  }, messages)
  const heard = () => page.evaluate(() => heard)
  await until("all messages", async () => {
    const { ours, theirs } = await heard()
    return ours.length >= messages.length && theirs.length >= messages.length
  }, { seen: heard })
  const { ours, theirs } = await heard()
  const [ourPeer, theirPeer] = await page.evaluate(() => [repo.peerId, stockRepo.networkSubsystem.peerId])
  assert.deepEqual(ours, messages.map(message => [theirPeer, message]))
  assert.deepEqual(theirs, messages.map(message => [ourPeer, message]))
})

story("presence of both libraries sees the other's", async world => {
  const relay = await world.relay()
  const page = await both(world, relay)
  await shared(page, "theirs", { n: 1 })
  await page.evaluate(() => {
    window.stockPresence = new stock.Presence({ handle: theirs })
    stockPresence.start({ initialState: { name: "stock", at: 0 } })
    window.presence = new reconverge.Presence(ours, { state: { name: "ours", at: 0 } })
  })
  const seen = () =>
    page.evaluate(() => ({
      ours: [...presence.peers.values()].map(({ state }) => state),
      theirs: Object.values(stockPresence.getPeerStates().value).map(({ value }) => value),
    }))
  const becomes = (ours, theirs) => {
    const expected = JSON.stringify({ ours, theirs })
    return until(`presence to be ${expected}`, async () => JSON.stringify(await seen()) === expected, { seen })
  }
  await becomes([{ name: "stock", at: 0 }], [{ name: "ours", at: 0 }])
  await page.evaluate(() => {
    presence.set({ at: 5 })
    stockPresence.broadcast("at", 7)
  })
  await becomes([{ name: "stock", at: 7 }], [{ name: "ours", at: 5 }])
  await page.evaluate(() => presence.set({ at: 6, name: "both at once" }))
  await becomes([{ name: "stock", at: 7 }], [{ name: "both at once", at: 6 }])
  await page.evaluate(() => stockPresence.stop())
  await becomes([], [{ name: "both at once", at: 6 }])
  await page.evaluate(() => stockPresence.start({ initialState: { name: "again", at: 1 } }))
  await becomes([{ name: "again", at: 1 }], [{ name: "both at once", at: 6 }])
  await page.evaluate(() => presence.stop())
  await becomes([], [])
})
