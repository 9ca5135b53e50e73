// What users of the package live through: other people, no network, reloads, closed tabs, a relay
// that dies, and a browser that keeps nothing.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { becomes, becomesStatus, create, find, flush, open, show, status, synced, type } from "./lib/doc.js"
import { story } from "./lib/world.js"

story("two people edit a document at once", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const [ann, bob] = [await world.plain(site), await world.plain(site)]
  for (const page of [ann, bob]) await open(page, { relay: relay.url })
  const url = await create(ann, { text: "hello", by: {} })
  await synced(ann)
  await find(bob, url)
  assert.deepEqual(await show(bob), { by: {}, text: "hello" })
  await Promise.all([
    ann.evaluate(() => {
      for (const char of "ann: ") doc.change(d => reconverge.splice(d, ["text"], doc.doc().text.indexOf("hello"), 0, char))
      doc.change(d => (d.by.ann = true))
    }),
    bob.evaluate(() => {
      for (const char of " bob") doc.change(d => reconverge.splice(d, ["text"], doc.doc().text.length, 0, char))
      doc.change(d => (d.by.bob = true))
    }),
  ])
  const expected = { by: { ann: true, bob: true }, text: "ann: hello bob" }
  await becomes(ann, expected)
  await becomes(bob, expected)
  await synced(ann)
  await becomesStatus(ann, "saved")
  await becomesStatus(bob, "saved")
})

story("what is edited offline is there after a reload, and merged when the relay is back", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const [ann, bob] = [await world.plain(site), await world.plain(site)]
  for (const page of [ann, bob]) await open(page, { relay: relay.url })
  const url = await create(ann, { text: "one" })
  await synced(ann)
  await find(bob, url)
  await relay.kill()
  await becomesStatus(ann, "saved")
  await type(ann, 3, " two")
  // The page hears of the end a moment after the process has ended.
  await becomesStatus(ann, "offline")
  await flush(ann)
  await type(bob, 0, "zero ")
  await ann.reload()
  await ann.waitForFunction(() => window.reconverge !== undefined)
  await open(ann, { relay: relay.url })
  await find(ann, url)
  assert.deepEqual(await show(ann), { text: "one two" })
  assert.equal(await status(ann), "offline")
  await relay.start()
  for (const page of [ann, bob]) {
    await page.evaluate(() => dispatchEvent(new Event("online")))
    await becomes(page, { text: "zero one two" })
    await becomesStatus(page, "saved")
  }
}, { ms: 90_000 })

story("two tabs share edits without a relay, and one storage", async world => {
  const site = await world.site()
  const context = await world.context()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  for (const page of [first, second]) await open(page, { relay: "ws://127.0.0.1:9" })
  const url = await create(first, { text: "" })
  await find(second, url)
  await Promise.all([
    first.evaluate(() => {
      for (let i = 0; i < 100; i++) doc.change(d => reconverge.splice(d, ["text"], 0, 0, "a"))
    }),
    second.evaluate(() => {
      for (let i = 0; i < 100; i++) doc.change(d => reconverge.splice(d, ["text"], doc.doc().text.length, 0, "b"))
    }),
  ])
  const length = async page => (await show(page)).text.length
  for (const page of [first, second]) {
    await until("all letters in both tabs", async () => (await length(page)) === 200, { seen: () => length(page) })
  }
  assert.deepEqual(await show(first), await show(second))
  assert.equal(await status(second), "offline")
  // The host's tab goes; the other one takes over, with what it had not told.
  await second.evaluate(() => doc.change(d => (d.last = 1)))
  await first.close()
  await second.evaluate(() => doc.change(d => (d.later = 2)))
  await flush(second)
  const third = await world.plain(site, context)
  await open(third, { relay: "ws://127.0.0.1:9" })
  await find(third, url)
  const shown = await show(third)
  assert.equal(shown.text.length, 200)
  assert.equal(shown.last, 1)
  assert.equal(shown.later, 2)
  world.expect(/WebSocket connection to 'ws:\/\/127.0.0.1:9/)
})

story("who looks for a document several times at once gets one handle, and shows what others type", async world => {
  const site = await world.site()
  const context = await world.context()
  const [ann, bob] = [await world.plain(site, context), await world.plain(site, context)]
  for (const page of [ann, bob]) await open(page, { relay: "ws://127.0.0.1:9" })
  const url = await create(ann, { text: "" })
  const ROUNDS = 20
  await Promise.all([
    ann.evaluate(async () => {
      window.isTyping = true
      while (isTyping) {
        for (let i = 0; i < 5; i++) doc.change(d => reconverge.splice(d, ["text"], 0, 0, "a"))
        // Not faster than the host.
        await doc.whenSynced({ level: "local" })
      }
    }),
    bob.evaluate(
      async ([url, ROUNDS]) => {
        const type = () => doc.change(d => reconverge.splice(d, ["text"], d.text.length, 0, "b"))
        const pause = ms => new Promise(resolve => setTimeout(resolve, ms))
        for (let round = 0; round < ROUNDS; round++) {
          const cancelled = new AbortController()
          const early = repo.find(url, { signal: cancelled.signal }).catch(error => {
            if (error.message !== "cancelled") throw error
          })
          const finds = [repo.find(url), repo.find(url), repo.find(url)]
          // Before it is answered, or as it is, or after.
          setTimeout(() => cancelled.abort(new Error("cancelled")), round % 5)
          const handles = await Promise.all(finds)
          const first = await early
          window.doc = handles[0]
          if (handles.some(handle => handle !== doc)) throw new Error("there are several handles")
          if (first !== undefined && first !== doc) throw new Error("there is another handle")
          type()
          await pause(10)
          for (const handle of handles) {
            type()
            handle.release()
          }
          first?.release()
        }
        window.doc = await repo.find(url)
      },
      [url, ROUNDS]
    ).finally(() => ann.evaluate(() => (window.isTyping = false))),
  ])
  const shown = await until("both to show the same", async () => {
    const [one, two] = [await show(ann), await show(bob)]
    return one.text === two.text && one.text
  })
  assert.equal([...shown].filter(char => char === "b").length, ROUNDS * 4)
  await type(bob, 0, "still")
  await until("what is typed then", async () => (await show(ann)).text.startsWith("still"))
})

story("what a closed tab did not send is sent by another", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const context = await world.context()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  for (const page of [first, second]) await open(page, { relay: relay.url })
  const url = await create(first, { n: 1 })
  await synced(first)
  await relay.kill()
  await first.evaluate(() => doc.change(d => (d.n = 2)))
  await flush(first)
  await first.close()
  await relay.start()
  const other = await world.plain(site)
  await open(other, { relay: relay.url })
  await find(other, url)
  // The second tab never opened the document.
  await becomes(other, { n: 2 })
})

story("nothing is lost when the relay is killed under typing", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const [ann, bob] = [await world.plain(site), await world.plain(site)]
  for (const page of [ann, bob]) await open(page, { relay: relay.url })
  const url = await create(ann, { text: "" })
  await synced(ann)
  await find(bob, url)
  const typing = ann.evaluate(async () => {
    for (let i = 0; i < 300; i++) {
      doc.change(d => reconverge.splice(d, ["text"], i, 0, String(i % 10)))
      await new Promise(resolve => setTimeout(resolve, 10))
    }
  })
  for (let kills = 0; kills < 3; kills++) {
    await new Promise(resolve => setTimeout(resolve, 600))
    await relay.kill()
    await relay.start()
  }
  await typing
  await synced(ann)
  const text = Array.from({ length: 300 }, (_, i) => String(i % 10)).join("")
  await becomes(bob, { text })
})

story("a storage that was wiped is filled again by the relay", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const page = await world.plain(site)
  await open(page, { relay: relay.url })
  const url = await create(page, { kept: "by the relay" })
  await synced(page)
  await page.evaluate(async () => {
    await repo.shutdown()
    for (const { name } of await indexedDB.databases()) indexedDB.deleteDatabase(name)
  })
  await page.reload()
  await page.waitForFunction(() => window.reconverge !== undefined)
  await open(page, { relay: relay.url })
  await find(page, url)
  assert.deepEqual(await show(page), { kept: "by the relay" })
})

story("a document that nobody has is unavailable", async world => {
  const relay = await world.relay()
  const page = await world.plain(await world.site())
  await open(page, { relay: relay.url })
  const find = () => page.evaluate(() => {
    const url = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ"
    return repo.find(url).then(String, ({ code, message }) => [code, message.replace(url, "URL")])
  })
  assert.deepEqual(await find(), ["unavailable", "URL is not here, and no relay that is connected has it"])
  await page.evaluate(() => repo.goOffline())
  assert.deepEqual(await find(), ["unavailable", "URL is not here, and no relay can be reached"])
})

story("an edit that the page made while it was not told of others' is kept, and so are theirs", async world => {
  const site = await world.site()
  const context = await world.context()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  for (const page of [first, second]) await open(page)
  const url = await create(first, { list: [], text: "" })
  await find(second, url)
  const edits = 200
  const edit = (page, name) =>
    page.evaluate(
      async ([name, edits]) => {
        let seed = name.charCodeAt(0)
        const random = n => (seed = (seed * 48271) % 2147483647) % n
        for (let i = 0; i < edits; i++) {
          doc.change(d => {
            d.list.insertAt(random(d.list.length + 1), { name, i, inner: [i] })
            reconverge.splice(d, ["text"], random(d.text.length + 1), 0, name)
            if (i % 3 === 0) d.list[random(d.list.length)].inner.push("touched")
            if (i % 7 === 0) d.list.deleteAt(random(d.list.length))
          })
          if (i % 5 === 0) await new Promise(resolve => setTimeout(resolve, 1))
        }
        await repo.flush()
      },
      [name, edits]
    )
  await Promise.all([edit(first, "a"), edit(second, "b")])
  const state = page => page.evaluate(async () => JSON.stringify([await doc.heads(), doc.doc()]))
  await until("both tabs to agree", async () => (await state(first)) === (await state(second)))
  const { text } = await show(first)
  assert.equal(text.length, 2 * edits)
  // What is shown is what is stored.
  const stored = await first.evaluate(async () => JSON.stringify(await doc.view(await doc.heads())))
  assert.equal(stored, await first.evaluate(() => JSON.stringify(doc.doc())))
})

story("taking back one's own edits leaves those of others", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const [ann, bob] = [await world.plain(site), await world.plain(site)]
  for (const page of [ann, bob]) await open(page, { relay: relay.url })
  const url = await create(ann, { text: "one three", items: ["a", "b", "c"], n: new Date(0), title: "t" })
  await synced(ann)
  await find(bob, url)
  const edit = (page, ...operations) =>
    page.evaluate(async operations => {
      for (const [path, ...rest] of operations) {
        doc.change(d => {
          if (path === "text") reconverge.splice(d, ["text"], ...rest)
          else if (path === "items") d.items.splice(...rest)
          else d[path] = rest[0]
        })
        // Edits of one text would be taken back together.
        await new Promise(resolve => setTimeout(resolve, 600))
      }
    }, operations)
  await edit(ann, ["text", 4, 0, "two \u{1F600} "], ["items", 1, 1, "B", "BB"], ["title", "T"])
  await becomes(bob, { items: ["a", "B", "BB", "c"], n: new Date(0), text: "one two \u{1F600} three", title: "T" })
  await edit(bob, ["text", 0, 0, "zero "], ["text", 10, 0, "-"], ["items", 0, 0, "first"], ["title", "bob's"])
  await synced(bob)
  const text = "zero one t-wo \u{1F600} three"
  await becomes(ann, { items: ["first", "a", "B", "BB", "c"], n: new Date(0), text, title: "bob's" })
  const take = (page, which) => page.evaluate(which => doc[which](), which)
  assert.equal(await ann.evaluate(() => doc.canUndo), true)
  // Of the title nothing is left, so that is passed over.
  assert.equal(await take(ann, "undo"), "all")
  await becomes(ann, { items: ["first", "a", "b", "c"], n: new Date(0), text, title: "bob's" })
  assert.equal(await take(ann, "undo"), "all")
  await becomes(ann, { items: ["first", "a", "b", "c"], n: new Date(0), text: "zero one -three", title: "bob's" })
  assert.equal(await take(ann, "undo"), false)
  for (let i = 0; i < 2; i++) assert.equal(await take(ann, "redo"), "all")
  assert.equal(await take(ann, "redo"), false)
  const { items, text: again } = await show(ann)
  assert.deepEqual(items, ["first", "a", "B", "BB", "c"])
  assert.equal(again.replace("-", ""), text.replace("-", ""))
  for (let i = 0; i < 2; i++) assert.equal(await take(ann, "undo"), "all")
  await becomes(ann, { items: ["first", "a", "b", "c"], n: new Date(0), text: "zero one -three", title: "bob's" })
  await synced(ann)
  await becomes(bob, await show(ann))
}, { ms: 90_000 })

story("the past can be looked at, and edited", async world => {
  const page = await world.plain(await world.site())
  await open(page)
  await create(page, { text: "one" })
  await type(page, 3, " two")
  const past = await page.evaluate(async () => {
    const heads = await doc.heads()
    doc.change(d => reconverge.splice(d, ["text"], 7, 0, " three"), { message: "more" })
    const history = await doc.history()
    const views = []
    for (const { hash } of history) views.push((await doc.view([hash])).text)
    const patches = await doc.diff(heads, await doc.heads())
    await doc.changeAt(heads, d => reconverge.splice(d, ["text"], 0, 0, "zero "))
    return { views, patches, message: history.at(-1).message }
  })
  assert.deepEqual(past.views, ["one", "one two", "one two three"])
  assert.deepEqual(past.patches, [{ action: "splice", path: ["text", 7], value: " three" }])
  assert.equal(past.message, "more")
  await becomes(page, { text: "zero one two three" })
  const [copied, merged] = await page.evaluate(async () => {
    const copy = await doc.clone()
    copy.change(d => (d.copied = true))
    doc.change(d => (d.kept = true))
    await doc.merge(copy)
    await doc.heads()
    return [copy.url !== doc.url, copy.doc().copied]
  })
  assert.ok(copied && merged)
  await becomes(page, { copied: true, kept: true, text: "zero one two three" })
})

story("a cursor stays with its character", async world => {
  const page = await world.plain(await world.site())
  await open(page)
  await create(page, { text: "one two three" })
  const cursor = await page.evaluate(() => doc.cursor(["text"], 4))
  await type(page, 0, "zero ")
  assert.equal(await page.evaluate(cursor => doc.position(["text"], cursor), cursor), 9)
  const failed = ([path, index]) => page.evaluate(args => doc.cursor(...args).catch(error => error.message), [path, index])
  assert.match(await failed([["text"], 19]), /there is no index 19 of a text or list at \/text/)
  assert.match(await failed([["text"], -1]), /there is no index -1/)
  assert.match(await failed([[], 0]), /of a text or list at \//)
})

story("a full disk is told, loses nothing in memory, and is tried again", async world => {
  const site = await world.site()
  const page = await world.plain(site)
  // The engine runs in the page here, where its storage can be made to fail.
  const result = await page.evaluate(async () => {
    const { Repo, MemoryStorage, StorageError } = reconverge
    const storage = new MemoryStorage()
    const commit = storage.commit.bind(storage)
    let full = false
    storage.commit = writes =>
      full ? Promise.reject(new StorageError("full", "no space left")) : commit(writes)
    const repo = await Repo.open({ storage })
    const problems = []
    repo.on("problem", problem => problems.push(problem.message))
    const doc = await repo.create({ n: 1 })
    await repo.flush()
    full = true
    doc.change(d => (d.n = 2))
    const failed = await repo.flush().then(() => "stored", error => error.code)
    const { storageError } = doc.status
    full = false
    const stored = new Promise(resolve => doc.on("status", s => !s.storageError && resolve(s.state)))
    const after = await stored
    await repo.flush()
    await repo.shutdown()
    return { failed, storageError, after, shown: doc.doc().n, problems: problems.length > 0 }
  })
  assert.deepEqual(result, {
    failed: "storage",
    storageError: "storage failed: no space left",
    after: "offline",
    shown: 2,
    problems: true,
  })
})

story("on a full disk, what is stored opens with other relays too, which get it when there is room", async world => {
  const { MemoryStorage, Repo, StorageError } = await import("../../wasm/dist/node.js")
  const opened = async options => {
    const repo = await Repo.open(options)
    world.adopt({ dispose: () => repo.shutdown() })
    return repo
  }
  class Disk extends MemoryStorage {
    isFull = false
    async commit(writes) {
      if (this.isFull) throw new StorageError("full", "no space left")
      await super.commit(writes)
    }
    async save(put, data) {
      await this.commit([{ put, data }])
    }
    async copy() {
      const copy = new Disk()
      await copy.commit((await this.loadRange([])).map(({ key, data }) => ({ put: key, data })))
      copy.isFull = true
      return copy
    }
  }
  const disk = new Disk()
  const before = await opened({ relay: (await world.relay()).url, storage: disk })
  const [doc, other] = [await before.create({ n: 1 }), await before.create({ n: 2 })]
  await Promise.all([doc.whenSynced(), other.whenSynced()])
  const alone = await opened({ storage: await disk.copy() })
  assert.equal((await alone.find(doc.url)).doc().n, 1)

  const relay = await world.relay()
  const full = await disk.copy()
  const repo = await opened({ relay: relay.url, storage: full })
  assert.equal((await repo.find(doc.url)).doc().n, 1)
  full.isFull = false
  const reader = await opened({ relay: relay.url })
  assert.equal((await reader.find(other.url, { wait: true })).doc().n, 2)
})

story("a relay that refuses the connection is told with its words", async world => {
  const { createServer } = await import("node:http")
  const server = createServer((_, response) => {
    response.writeHead(401, { "access-control-allow-origin": "*" })
    response.end("this token is not valid here")
  })
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve))
  world.adopt({ dispose: () => new Promise(resolve => (server.closeAllConnections(), server.close(resolve))) })
  world.expect(/WebSocket connection to|401/)
  const page = await world.plain(await world.site())
  const url = `ws://127.0.0.1:${server.address().port}/sync`
  await open(page, { relay: url, token: "secret" })
  await create(page, { n: 1 })
  await becomesStatus(page, "refused")
  const { reason } = await page.evaluate(() => doc.status)
  assert.match(reason, /HTTP 401.*this token is not valid here/)
  assert.deepEqual(await page.evaluate(() => repo.connections.map(({ relay, state }) => [relay, state])), [[url, "refused"]])
})

story("a tab that is killed while it writes loses nothing that was stored", async world => {
  const site = await world.site()
  const context = await world.context()
  let url
  let stored = 0
  for (let kills = 0; kills < 50; kills++) {
    const page = await world.plain(site, context)
    await open(page)
    if (url) await find(page, url)
    else url = await create(page, { n: 0, text: "" })
    const found = await page.evaluate(() => doc.doc().n)
    assert.ok(found >= stored, `kill ${kills}: found ${found} where ${stored} was stored`)
    await page.exposeFunction("acknowledged", n => (stored = Math.max(stored, n)))
    await page.evaluate(() => {
      const write = async () => {
        for (;;) {
          doc.change(d => {
            d.n += 1
            reconverge.splice(d, ["text"], 0, 0, "some text ")
          })
          const n = doc.doc().n
          await doc.whenSynced({ level: "local" })
          await acknowledged(n)
        }
      }
      write().catch(() => {})
    })
    await new Promise(resolve => setTimeout(resolve, 20 + (kills * 37) % 100))
    await page.close()
  }
  assert.ok(stored > 50, `only ${stored} writes were acknowledged`)
}, { ms: 180_000 })

story("what the browser deletes under an open repo is written again", async world => {
  const context = await world.context()
  const site = await world.site()
  const page = await world.plain(site, context)
  await open(page)
  const url = await create(page, { text: "kept" })
  await flush(page)
  const cdp = await context.newCDPSession(page)
  await cdp.send("Storage.clearDataForOrigin", { origin: site.url, storageTypes: "indexeddb" })
  await type(page, 4, " in memory")
  await until("the loss to be told", () => page.evaluate(() => problems.some(problem => /deleted/.test(problem))))
  await flush(page)
  await page.reload()
  await page.waitForFunction(() => window.reconverge !== undefined)
  await open(page)
  await find(page, url)
  assert.deepEqual(await show(page), { text: "kept in memory" })
})
