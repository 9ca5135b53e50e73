// Apps of stock libraries, made as automerge-repo's public examples are, two browsers each, through
// the relay. What is tested is what apps, not libraries, take for granted of a server: above all
// its name, for many share documents with nobody whose name lacks "storage-server".

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { automerge, bundle, svelte } from "./lib/bundle.js"
import { story } from "./lib/world.js"

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>app</title>
<link rel="icon" href="data:,">
<style>.ProseMirror { white-space: pre-wrap }</style>
<body></body>
<script type="module" src="/app.js"></script>
`

const options = {
  define: { "process.env.NODE_ENV": '"development"' },
  plugins: [automerge, svelte],
  conditions: ["svelte", "browser"],
}

const text = selector => page => page.locator(selector).innerText({ timeout: 1_000 })

const click = page => page.locator("button").click()

/** Types at the end of an editor. */
const type = async (page, typed) => {
  await page.locator("[contenteditable=true]").click()
  await page.keyboard.press("Control+End")
  await page.keyboard.type(typed)
}

async function becomes(page, see, expected) {
  const seen = async () => (await see(page)).trim()
  await until(`the page to show ${expected}`, async () => (await seen().catch(() => "")) === expected, { seen })
}

/** For each app: what it shows, and what two people do in turn, each behind what it then shows. */
const APPS = {
  "a counter in React whose repo is in a SharedWorker": {
    script: "counter",
    see: text("button"),
    empty: "Count: 0",
    steps: [[click, "Count: 1"], [click, "Count: 2"], [click, "Count: 3"]],
  },
  "a list in React of which every item is a document": {
    script: "todo",
    see: text("ul"),
    empty: "",
    steps: [
      [page => page.locator("form input").fill("milk").then(() => page.keyboard.press("Enter")), "open: milk"],
      [page => page.locator("li input").click(), "done: milk"],
      [page => page.locator("form input").fill("eggs").then(() => page.keyboard.press("Enter")), "done: milk\nopen: eggs"],
      [page => page.locator("li input").last().click(), "done: milk\ndone: eggs"],
    ],
  },
  "a counter in Svelte": {
    script: "svelte",
    see: text("button"),
    empty: "Count: 0",
    steps: [[click, "Count: 1"], [click, "Count: 2"], [click, "Count: 3"]],
  },
  "a text in CodeMirror": {
    script: "codemirror",
    see: page => page.evaluate(() => view.state.doc.toString()),
    empty: "",
    steps: [
      [page => type(page, "one"), "one"],
      [page => type(page, ", two"), "one, two"],
      [page => page.keyboard.press("Control+Home").then(() => page.keyboard.type("zero, ")), "zero, one, two"],
    ],
  },
  "a rich text in ProseMirror": {
    script: "prosemirror",
    see: page => page.evaluate(() => view.dom.innerHTML.replace(/<br[^>]*>/g, "").replace(/ [a-z-]+="[^"]*"/g, "")),
    empty: "<p></p>",
    steps: [
      [page => type(page, "one"), "<p>one</p>"],
      [page => type(page, " two"), "<p>one two</p>"],
      [
        async page => {
          await page.locator("[contenteditable=true]").click()
          await page.keyboard.press("Control+A")
          // The editor hears of a selection a moment after the browser made it.
          await page.waitForFunction(() => view.state.selection.to - view.state.selection.from >= "one two".length)
          await page.evaluate(() => strong())
        },
        "<p><strong>one two</strong></p>",
      ],
    ],
  },
}

/** `open(hash)` gives the app in a browser of its own. */
async function opener(world, relay, script) {
  const site = await world.site({
    "/app.html": PAGE,
    "/app.js": await bundle(`pages/apps/${script}.js`, options),
    "/worker.js": await bundle("pages/apps/worker.js", options),
  })
  const address = `${site.url}/app.html?relay=${encodeURIComponent(relay.url)}`
  // What the stock library says of itself.
  world.expect(/deprecated parameters for `initSync/)
  return (hash = "") => world.page(`${address}${hash}`)
}

for (const [name, { script, see, empty, steps }] of Object.entries(APPS)) {
  story(`${name} works between two browsers, and is there after the relay was killed`, async world => {
    const relay = await world.relay()
    const open = await opener(world, relay, script)
    const ann = await open()
    await becomes(ann, see, empty)
    const hash = new URL(ann.url()).hash
    const bob = await open(hash)
    await becomes(bob, see, empty)
    for (const [turn, [act, expected]] of steps.entries()) {
      const [writer, reader] = turn % 2 ? [bob, ann] : [ann, bob]
      await act(writer)
      await becomes(writer, see, expected)
      await becomes(reader, see, expected)
    }
    await Promise.all([ann, bob].map(page => page.context().close()))
    await relay.kill()
    await relay.start()
    const eve = await open(hash)
    await becomes(eve, see, steps.at(-1)[1])
  })
}

story("what an app tells of itself without storing it is seen in another browser", async world => {
  const relay = await world.relay()
  const open = await opener(world, relay, "presence")
  const ann = await open()
  await ann.locator("input").waitFor()
  const bob = await open(new URL(ann.url()).hash)
  await becomes(bob, text("p"), "start")
  await ann.locator("input").fill("line 1")
  await becomes(bob, text("p"), "line 1")
  await bob.locator("input").fill("line 2")
  await becomes(ann, text("p"), "line 2")
})

story("a tab hears through its SharedWorker what the relay has on disk", async world => {
  const relay = await world.relay()
  const open = await opener(world, relay, "counter")
  const ann = await open()
  await becomes(ann, text("button"), "Count: 0")
  const storage = /storage_id=([0-9a-f-]{36})/.exec(relay.log)?.[1]
  assert.ok(storage, "the relay's log names its storage")
  await ann.evaluate(storage => repo.subscribeToRemotes([storage]), storage)
  await click(ann)
  const heads = page => page.evaluate(storage => [handle.heads(), handle.getSyncInfo(storage)?.lastHeads], storage)
  const seen = () => heads(ann)
  const same = async () => {
    const [own, stored] = await seen()
    return JSON.stringify(own) === JSON.stringify(stored)
  }
  await until("the relay's heads in the tab", same, { seen })
})
