// What a call promises: that what was awaited is there, what it waits for, what it refuses and how,
// and that nothing keeps a process when the repo is shut down.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { test } from "node:test"
import { build } from "esbuild"
import { fileURLToPath } from "node:url"
import { reactive, ref } from "vue"
import { Presence, Repo } from "../../wasm/dist/node.js"
import { until } from "../interop/lib/wait.js"
import { create, find, open } from "./lib/doc.js"
import { story } from "./lib/world.js"

/** A repo that is shut down after its test. */
async function opened(t, options) {
  const repo = await Repo.open(options)
  t.after(() => repo.shutdown())
  return repo
}

const disposed = repo => Object.assign(repo, { dispose: () => repo.shutdown() })

story("what was awaited is there, in a page and in Node.js, and is told as one's own", async world => {
  const relay = await world.relay()
  const run = async (repo, isOther) => {
    const doc = await repo.create({ items: [], text: "" })
    const sources = []
    doc.on("change", ({ source }) => sources.push(source))
    const faults = []
    const is = (what, expected, step) => {
      const shown = JSON.stringify(what)
      if (shown !== JSON.stringify(expected)) faults.push(`${step}: ${shown}`)
    }
    for (let i = 0; i < 30; i++) {
      const before = doc.doc()
      const past = await doc.heads()
      doc.change(draft => draft.items.push(i))
      is(doc.canUndo || (await doc.heads()).length > 0, true, "heads")
      is(await doc.undo(), "all", "undo")
      is(doc.doc(), before, "after undo")
      is([doc.canUndo, doc.canRedo], [i > 0, true], "can after undo")
      is(await doc.redo(), "all", "redo")
      is(doc.doc().items.length, i + 1, "after redo")
      const heads = await doc.changeAt(past, draft => (draft.text = `at ${i}`))
      is(doc.doc().text, `at ${i}`, "after changeAt")
      is((await doc.view(heads)).text, `at ${i}`, "the view at its heads")
      const other = await doc.clone()
      other.change(draft => draft.items.push("other"))
      await doc.merge(other)
      is(doc.doc().items.at(-1), "other", "after merge")
      is(await doc.heads(), await doc.heads(), "heads")
      doc.change(draft => draft.items.splice(draft.items.indexOf("other"), 1))
      await repo.delete(other.url)
      await doc.undo()
      await doc.redo()
    }
    if (isOther) doc.change(draft => (draft.done = true))
    return { faults, sources: [...new Set(sources)] }
  }
  const site = await world.site()
  const ann = await world.plain(site)
  await open(ann, { relay: relay.url })
  assert.deepEqual(await ann.evaluate(`(${run})(repo)`), { faults: [], sources: ["local"] })
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  assert.deepEqual(await run(repo), { faults: [], sources: ["local"] })
}, { ms: 120_000 })

story("what another does is told as another's", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const [ann, bob] = [await world.plain(site), await world.plain(site)]
  for (const page of [ann, bob]) await open(page, { relay: relay.url })
  const url = await create(ann, { n: 0 })
  await ann.evaluate(() => doc.whenSynced())
  await find(bob, url)
  await bob.evaluate(() => {
    window.sources = []
    doc.on("change", ({ source }) => sources.push(source))
  })
  await ann.evaluate(() => doc.change(draft => (draft.n = 1)))
  // Else both may come at once, as one.
  await until("the first at Bob", () => bob.evaluate(() => doc.doc().n === 1))
  await ann.evaluate(() => doc.undo())
  await until("both at Bob", () => bob.evaluate(() => sources.length === 2 && doc.doc().n === 0))
  assert.deepEqual(await bob.evaluate(() => sources), ["remote", "remote"])
})

story("a level is waited for by what was edited before, though editing goes on", async world => {
  const relays = [await world.relay(), await world.relay()]
  const run = async (repo, level) => {
    const doc = await repo.create({ n: 0 })
    let isDone = false
    const reached = doc.whenSynced({ level }).then(() => (isDone = true))
    // Without an end but the one that it waits for.
    while (!isDone) {
      doc.change(draft => (draft.n += 1))
      await new Promise(resolve => setTimeout(resolve))
    }
    await reached
    const edits = doc.doc().n
    await doc.whenSynced({ level })
    return edits
  }
  const relay = relays.map(({ url }) => url)
  const site = await world.site()
  const ann = await world.plain(site)
  await open(ann, { relay })
  const repo = world.adopt(disposed(await Repo.open({ relay })))
  for (const level of ["local", "durable", "replicated"]) {
    assert.ok((await ann.evaluate(`(${run})(repo, "${level}")`)) > 0)
    assert.ok((await run(repo, level)) > 0)
  }
})

test("what is of no use is refused by a promise, with a code and in words", async t => {
  const repo = await opened(t, { storage: "memory" })
  const doc = await repo.create({ text: "x", n: 1 })
  const refuses = async (call, code, words) => {
    let promise
    assert.doesNotThrow(() => (promise = call()), `${call} throws`)
    await assert.rejects(promise, error => {
      assert.equal(error.name, "RepoError", `${call}: ${error}`)
      assert.equal(error.code, code, `${call}: ${error}`)
      assert.match(error.message, words)
      return true
    })
  }
  for (const call of ["find", "export", "delete"]) {
    await refuses(() => repo[call](undefined), "failed", /undefined is no url of a document/)
    await refuses(() => repo[call]({}), "failed", /no url of a document/)
    await refuses(() => repo[call]("automerge:nonsense"), "failed", /no url of a document/)
  }
  await refuses(() => repo.import("text"), "failed", /bytes of a document/)
  await refuses(() => repo.import(new Uint8Array([1, 2, 3])), "damaged", /./)
  await refuses(() => repo.create([1]), "failed", /plain object/)
  await refuses(() => repo.create(5), "failed", /plain object/)
  await refuses(() => doc.merge({}), "failed", /merge takes a handle/)
  await refuses(() => doc.merge(undefined), "failed", /merge takes a handle/)
  await refuses(() => doc.view(["nonsense"]), "failed", /no hash/)
  await refuses(() => doc.view(undefined), "failed", /heads/)
  await refuses(() => doc.diff([], "nonsense"), "failed", /heads/)
  await refuses(() => doc.changeAt(7, () => {}), "failed", /heads/)
  await refuses(() => Repo.open({ peerId: "x".repeat(300) }), "failed", /peerId/)
  await refuses(() => Repo.open({ relays: [] }), "failed", /no option "relays"; there are relay/)
  for (const options of [5, null, [], Promise.resolve({})]) await refuses(() => Repo.open(options), "failed", /plain object/)
  for (const storage of ["foo", 5, null, {}, () => {}]) await refuses(() => Repo.open({ storage }), "failed", /a storage is/)
  await refuses(() => Repo.open({ name: 5 }), "failed", /"name" is a string/)
  await refuses(() => Repo.open({ token: {} }), "failed", /"token" is a string/)
  await refuses(() => Repo.open({ relay: 5 }), "failed", /no url of a relay/)
  await refuses(() => Repo.open({ relay: "http://example.org" }), "failed", /no url of a relay/)
  for (const [call, argument] of [["cursor", 0], ["position", "c"], ["marks"], ["spans"]]) {
    await assert.rejects(doc[call](["nothing"], argument), RangeError)
  }
  await refuses(() => doc.cursor(["text"], NaN), "failed", /whole number/)
  await refuses(() => doc.position(["text"], 5), "failed", /a cursor is a string/)
  await refuses(() => doc.whenSynced({ level: "bogus" }), "failed", /no level bogus/)
  await refuses(() => doc.whenSynced({ level: null }), "failed", /no level null/)
  await refuses(() => doc.view([5]), "failed", /heads/)
  for (const initial of [new Map([["a", 1]]), new Date(), Promise.resolve({}), /x/, new Error("x")]) {
    await refuses(() => repo.create(initial), "failed", /plain object/)
  }
  for (const message of [5, {}, Symbol("s"), null]) {
    assert.throws(() => doc.change(draft => (draft.n = 9), { message }), /message of a change is a string/)
    await assert.rejects(doc.changeAt([], draft => (draft.n = 9), { message }), /message of a change is a string/)
  }
  assert.throws(() => doc.change(draft => (draft.n = 9), { get message() { throw new Error("getter") } }), /getter/)
  assert.equal(doc.doc().n, 1, "nothing of it happened")
  doc.change(draft => (draft.n = 2), null)
  assert.equal(await doc.undo(), "all")
  assert.equal(doc.doc().n, 1)
  assert.throws(() => doc.on("change", undefined), /a listener is a function/)
  await assert.rejects(repo.create({ f: () => {} }), TypeError)
  // What is at once is refused at once.
  assert.throws(() => doc.change(draft => (draft.f = () => {})), TypeError)
  await repo.shutdown()
  assert.throws(() => doc.change(draft => (draft.n = 2)), { code: "closed" })
  await refuses(() => doc.undo(), "closed", /not open any more/)
})

test("presence and broadcasts take what frameworks make reactive, and refuse what is no data", async t => {
  const repo = await opened(t, { storage: "memory" })
  const doc = await repo.create({ n: 1 })
  const state = reactive({ caret: { at: [1, 2] }, seen: new Date(0), bytes: new Uint8Array([1]) })
  const presence = new Presence(doc, { state })
  presence.set(reactive({ caret: reactive({ at: [3] }) }))
  doc.broadcast(reactive({ list: [reactive({ a: 1 }), null, undefined, NaN] }))
  assert.throws(() => doc.broadcast({ a: [1n] }), { name: "TypeError", message: /a bigint at \/a\/0/ })
  for (const [value, what] of [[new Map(), "a Map"], [/x/, "a RegExp"], [Promise.resolve(), "a Promise"], [doc, "a class's instance"]]) {
    assert.throws(() => doc.broadcast({ value }), error => error.message.includes(`${what} at /value`))
  }
  assert.throws(() => doc.broadcast({ f: () => {} }), /a function at \/f/)
  assert.throws(() => doc.broadcast("x".repeat(2 ** 20)), RangeError)
  const cycle = {}
  cycle.cycle = cycle
  assert.throws(() => doc.broadcast(cycle), RangeError)
  assert.throws(() => presence.set({ caret: 1n }), /a bigint at \/caret/)
  assert.deepEqual(presence.local.caret, { at: [3] })
  assert.throws(() => new Presence(doc, { state: { f: () => {} } }), /a function at \/f/)
  presence.stop()
})

story("who comes back sees the others at once, though nothing was unsent", async world => {
  const relay = await world.relay()
  const join = async () => world.adopt(disposed(await Repo.open({ relay: relay.url })))
  const [ann, bob] = [await join(), await join()]
  const doc = await ann.create({ n: 1 })
  await doc.whenSynced()
  const other = await bob.find(doc.url)
  // Nobody says anything by itself.
  const quiet = { heartbeatMs: 600_000, expireMs: 600_000 }
  const [hers, his] = [doc, other].map(handle => new Presence(handle, { ...quiet, state: { n: 0 } }))
  const seen = presence => [...presence.peers.values()].map(({ state }) => state.n).join()
  await until("both to see each other", () => seen(hers) === "0" && seen(his) === "0")
  assert.deepEqual([doc.isConnected, doc.status.state], [true, "saved"])
  ann.goOffline()
  await until("Ann to be offline", () => !doc.isConnected)
  assert.equal(doc.status.state, "saved")
  his.set({ n: 1 })
  hers.set({ n: 2 })
  ann.goOnline()
  await until("Ann to see Bob", () => seen(hers) === "1")
  await until("Bob to see Ann", () => seen(his) === "2")
  hers.stop()
  his.stop()
})

test("a handle, a repo and a presence work inside of reactive objects", async t => {
  const repo = await opened(t, { storage: "memory" })
  const doc = await repo.create({ n: 1 })
  const presence = new Presence(doc, { state: { a: 1 } })
  const held = ref({ repo, doc, list: [doc], inner: { presence } })
  held.value.doc.change(draft => (draft.n = 2))
  assert.equal(reactive(doc).doc().n, 2)
  assert.equal(held.value.list[0].doc().n, 2)
  assert.deepEqual(held.value.repo.connections, [])
  held.value.inner.presence.set({ a: 2 })
  assert.deepEqual(ref(presence).value.local, { a: 2 })
  presence.stop()
})

test("a process ends when its repo was shut down, whatever is still present or rendered", async () => {
  const entry = new URL("../../wasm/dist/node.js", import.meta.url).href
  const source = `
    import { Presence, Repo } from "${entry}"
    import { RepoProvider, useDocument } from "../../wasm/dist/react.js"
    import { createElement as h, Suspense } from "react"
    import { renderToPipeableStream } from "react-dom/server"
    import { Writable } from "node:stream"
    const repo = await Repo.open({ storage: "memory" })
    const doc = await repo.create({ text: "rendered" })
    const presence = new Presence(doc, { state: { a: 1 } })
    const Text = () => h("p", null, useDocument(doc.url)[0].text)
    const tree = h(RepoProvider, { repo }, h(Suspense, { fallback: "…" }, h(Text)))
    let html = ""
    const out = new Writable({ write: (chunk, _, done) => ((html += chunk), done()) })
    await new Promise(done => renderToPipeableStream(tree).pipe(out).on("finish", done))
    if (!html.includes("rendered")) throw new Error(html)
    await repo.shutdown()
    presence.set({ a: 2 })
    console.log("shut down")`
  const folder = fileURLToPath(new URL(".", import.meta.url))
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir: folder },
    bundle: true,
    platform: "node",
    format: "esm",
    external: [entry],
    alias: { react: `${folder}node_modules/react` },
    banner: { js: `import { createRequire } from "node:module"; const require = createRequire("${import.meta.url}")` },
    write: false,
  })
  const stdio = ["pipe", "pipe", "inherit"]
  const child = spawn(process.execPath, ["--input-type=module", "-"], { stdio })
  child.stdin.end(outputFiles[0].contents)
  let said = ""
  child.stdout.on("data", data => (said += data))
  // Without an end of its own, this test ends by its limit.
  const [code] = await once(child, "exit")
  assert.equal(code, 0)
  assert.equal(said.trim(), "shut down")
})
