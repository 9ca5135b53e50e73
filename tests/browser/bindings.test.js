// What the package has for editors and for presence, among themselves and with stock clients.

import assert from "node:assert/strict"
import { Client } from "../interop/lib/client.js"
import { StockPresence } from "../interop/lib/presence.js"
import { until } from "../interop/lib/wait.js"
import { bundle, codeMirror } from "./lib/bundle.js"
import { story } from "./lib/world.js"

const SEED = Number(process.env.RECONVERGE_EDITOR_SEED ?? Date.now() % 1_000_000)
const EDITS = 150

const EDITORS = `<!doctype html>
<meta charset="utf-8">
<title>editors</title>
<link rel="icon" href="data:,">
<script type="module" src="/package/dist/editors.js"></script>
`

/** A site whose `/editors.html` is pages/editors.js, beside the package's module. */
async function editors(world) {
  const script = await bundle("pages/editors.js", { alias: codeMirror })
  return world.site({ "/editors.html": EDITORS, "/package/dist/editors.js": script })
}

async function editor(world, site, options, context) {
  const page = await world.page(`${site.url}/editors.html`, context)
  await page.waitForFunction(() => window.start !== undefined)
  const url = await page.evaluate(options => start(options), options)
  return { page, url }
}

const shown = page => page.evaluate(() => view.state.doc.toString())
const text = page => page.evaluate(() => doc.doc().text)
const names = page =>
  page.evaluate(() => [...presence.peers.values()].map(({ state }) => state.user.name).sort())

const becomes = (what, read, expected, options) =>
  until(`${what} to be ${JSON.stringify(expected)}`, async () => {
    return JSON.stringify(await read()) === JSON.stringify(expected)
  }, { seen: read, ...options })

/** A goodbye may be lost with a tab that is closed; then it is missed after 45 s. */
const LOST = { ms: 70_000 }

story("three editors show what the document says, whatever is typed", async world => {
  world.tell(`RECONVERGE_EDITOR_SEED=${SEED}`)
  const relay = await world.relay()
  const site = await editors(world)
  const first = await editor(world, site, { relay: relay.url, text: "Hello\nworld", user: null })
  await first.page.evaluate(() => doc.whenSynced())
  const pages = [first.page]
  for (let count = 0; count < 2; count++) {
    pages.push((await editor(world, site, { relay: relay.url, url: first.url, user: null })).page)
  }
  const scribble = (page, index) =>
    page.evaluate(([edits, seed]) => scribble(edits, seed), [EDITS, SEED + index])
  await Promise.all(pages.map(scribble))
  await pages[1].evaluate(() => repo.goOffline())
  await Promise.all(pages.map((page, index) => scribble(page, index + 3)))
  await pages[1].evaluate(() => repo.goOnline())

  const states = () => Promise.all(pages.flatMap(page => [text(page), shown(page)]))
  await until("all to show the same", async () => new Set(await states()).size === 1, {
    seen: states,
  })
  for (const page of pages) assert.deepEqual(await page.evaluate(() => unlike), [])
})

story("what others write waits while its line is being composed", async world => {
  const relay = await world.relay()
  const site = await editors(world)
  const ann = await editor(world, site, { relay: relay.url, text: "one\ntwo", user: null })
  await ann.page.evaluate(() => doc.whenSynced())
  const bob = await editor(world, site, { relay: relay.url, url: ann.url, user: null })
  await ann.page.evaluate(() => {
    view.focus()
    view.dispatch({ selection: { anchor: 7 } })
  })
  const keyboard = await ann.page.context().newCDPSession(ann.page)
  const compose = text =>
    keyboard.send("Input.imeSetComposition", {
      text,
      selectionStart: text.length,
      selectionEnd: text.length,
    })
  await compose("に")
  await becomes("bob's text", () => shown(bob.page), "one\ntwoに")
  await bob.page.evaluate(() => view.dispatch({ changes: { from: 4, insert: "bob " } }))
  await becomes("ann's document", () => text(ann.page), "one\nbob twoに")
  assert.equal(await shown(ann.page), "one\ntwoに", "the line stays as it is")
  await bob.page.evaluate(() => view.dispatch({ changes: { from: 0, insert: "bob " } }))
  await compose("にほ")
  await becomes("bob's text", () => shown(bob.page), "bob one\nbob twoにほ")
  await keyboard.send("Input.insertText", { text: "日本" })
  for (const { page } of [ann, bob]) {
    await becomes("the text", () => shown(page), "bob one\nbob two日本")
  }
})

story("editors show each other's carets, with names", async world => {
  const relay = await world.relay()
  const site = await editors(world)
  const user = { name: "Ann", color: "#be185d" }
  const ann = await editor(world, site, { relay: relay.url, text: "one two three", user })
  await ann.page.evaluate(() => doc.whenSynced())
  const bob = await editor(world, site, {
    relay: relay.url,
    url: ann.url,
    user: { name: "Bob", color: "#0f766e" },
  })
  await ann.page.evaluate(() => {
    view.focus()
    view.dispatch({ selection: { anchor: 4, head: 7 } })
  })
  const carets = page =>
    page.evaluate(() => [...document.querySelectorAll(".cm-peerCaret")].map(caret => caret.innerText))
  await becomes("bob's view of ann", () => carets(bob.page), ["Ann"])
  const selected = page => page.evaluate(() => document.querySelectorAll(".cm-peerSelection").length)
  assert.equal(await selected(bob.page), 1)
  await ann.page.close({ runBeforeUnload: false })
  await becomes("bob's view of ann", () => carets(bob.page), [], LOST)
}, { ms: 120_000 })

story("tabs, browsers and stock clients see each other's presence", async world => {
  const relay = await world.relay()
  const site = await editors(world)
  const context = await world.context()
  const one = await editor(world, site, { relay: relay.url, text: "", user: { name: "one" } }, context)
  await one.page.evaluate(() => doc.whenSynced())
  const join = (name, context) =>
    editor(world, site, { relay: relay.url, url: one.url, user: { name } }, context)
  const two = await join("two", context)
  const other = await join("other")
  const client = new Client("stock", relay.url)
  world.adopt({ dispose: () => client.repo.shutdown() })
  const stock = new StockPresence({ handle: await client.find(one.url) })
  stock.start({ initialState: { user: { name: "stock" } } })
  world.adopt({ dispose: async () => stock.stop() })

  await becomes("what one sees", () => names(one.page), ["other", "stock", "two"])
  await becomes("what two sees", () => names(two.page), ["one", "other", "stock"])
  await becomes("what other sees", () => names(other.page), ["one", "stock", "two"])
  // To it, a browser is one peer: its tabs take turns.
  const seen = () => Object.values(stock.getPeerStates().value).map(({ value }) => value.user.name)
  await until("stock to see both browsers", () => seen().length === 2 && seen().includes("other"), {
    seen,
  })

  await other.page.evaluate(() => presence.set({ user: { name: "another" } }))
  await until("stock to see the change", () => seen().includes("another"), { seen })
  stock.broadcast("user", { name: "stick" })
  await becomes("what two sees", () => names(two.page), ["another", "one", "stick"])

  await two.page.evaluate(() => presence.stop())
  await becomes("what one sees", () => names(one.page), ["another", "stick"])
  await until("stock to see the tab that is left", () => seen().includes("one"), { seen })
  stock.stop()
  await becomes("what one sees", () => names(one.page), ["another"])
})

story("whoever is in a document is so once, also when a tab of theirs that has the engine goes", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const open = async (context, name, url) => {
    const page = await world.plain(site, context)
    const options = { relay: relay.url, name, url }
    return { page, url: await page.evaluate(async ({ relay, name, url }) => {
      window.repo = await reconverge.Repo.open({ relay })
      window.doc = url ? await repo.find(url) : await repo.create({})
      window.presence = new reconverge.Presence(doc, { state: { name } })
      await doc.whenSynced()
      return doc.url
    }, options) }
  }
  const ann = await open(await world.context(), "ann")
  const peers = () => ann.page.evaluate(() => [...presence.peers].map(([, { state }]) => state.name).sort())
  const keys = () => ann.page.evaluate(() => [...presence.peers.keys()].sort())
  const context = await world.context()
  const bobs = []
  for (const name of ["first", "second", "third", "fourth"]) {
    bobs.push(await open(context, name, ann.url))
    await becomes("those who are there", peers, bobs.map((_, n) => ["first", "second", "third", "fourth"][n]).sort())
  }
  const before = await keys()
  const hasEngine = ({ page }) => page.evaluate(() => {
    doc.change(draft => (draft.at = Date.now()))
    return doc.whenSynced({ level: "durable" })
  })
  // Each of these has the engine.
  await bobs[0].page.goto("about:blank")
  await becomes("those who are left", peers, ["fourth", "second", "third"])
  await hasEngine(bobs[1])
  await bobs[1].page.evaluate(() => repo.shutdown())
  await becomes("those who are left", peers, ["fourth", "third"])
  await hasEngine(bobs[2])
  await bobs[2].page.close()
  await becomes("the last", peers, ["fourth"], LOST)
  await hasEngine(bobs[3])
  await bobs[3].page.evaluate(() => presence.set({ name: "four" }))
  await becomes("the last", peers, ["four"])
  assert.ok(before.includes((await keys())[0]), "it is who it was")
  await bobs[3].page.goto("about:blank")
  await becomes("nobody", peers, [])
}, { ms: 150_000 })
