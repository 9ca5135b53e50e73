// The README of the package, as written: its tutorial step by step, and its examples.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { until } from "../interop/lib/wait.js"
import { packageFolder } from "./lib/package.js"
import { story } from "./lib/world.js"

const README = readFileSync(new URL("../../wasm/README.md", import.meta.url), "utf8")

/** The README's blocks of code, in order, with the number of the step that they are in. */
const blocks = (() => {
  const found = []
  let step = 0
  for (const [, number, info, text] of README.matchAll(/^### (\d+)\. |^```(.*)\n([^]*?)^```$/gm)) {
    if (number !== undefined) step = Number(number)
    else found.push({ step, info, text })
  }
  return found
})()

const LAST_STEP = Math.max(...blocks.map(({ step }) => step))

const PAGE = `<!doctype html><link rel="icon" href="data:,"><script type="module" src="/example.js"></script>`

/** A file of the tutorial, as it is at the end of a step. */
const fileAt = (step, name) =>
  blocks
    .filter(block => block.step <= step && block.info.endsWith(` ${name}`))
    .map(({ text }) => text)
    .join("\n")

/** The app of the tutorial, served; `goTo` makes it what it is at the end of a step. */
async function serve(world, relay) {
  const site = await world.site({ "/node_modules/reconverge/": `${packageFolder()}/` })
  const goTo = step => {
    site.places.set("/index.html", fileAt(step, "index.html"))
    const app = fileAt(step, "app.js")
    site.places.set("/app.js", app.replace("ws://127.0.0.1:3030", relay.url) + "\nwindow.repo = repo\nwindow.loaded = true\n")
  }
  return { site, goTo }
}

const loaded = page => page.waitForFunction(() => window.loaded)

/** Loads a page again, once what it changed is stored: a user needs longer than that. */
async function reload(page) {
  await page.evaluate(() => repo.flush())
  await page.reload()
  await loaded(page)
}

const tasks = page => page.locator("#tasks li").allTextContents()

async function showsTasks(page, expected) {
  const shows = async () => JSON.stringify(await tasks(page)) === JSON.stringify(expected)
  await until(`the tasks ${expected}`, shows, { seen: () => tasks(page) })
}

const shows = (page, selector, expected, ms = 15_000) =>
  until(`${selector} to say ${expected}`, async () => expected.test(await page.locator(selector).textContent()), {
    ms,
    seen: () => page.locator(selector).textContent(),
  })

async function add(page, text) {
  await page.fill("#text", text)
  await page.press("#text", "Enter")
}

story("the tutorial does what it says, step by step", async world => {
  const start = blocks.find(({ info, step }) => step === 1 && info === "sh")
  assert.match(start.text, / serve --listen 127\.0\.0\.1:3030 --data \.\/data$/m)
  const relay = await world.relay()
  const { site, goTo } = await serve(world, relay)
  const context = await world.context()

  goTo(2)
  const ann = await world.page(`${site.url}/index.html`, context)
  await loaded(ann)

  goTo(3)
  await reload(ann)
  const address = ann.url()
  assert.match(address, /#automerge:\w+$/)
  await reload(ann)
  assert.equal(ann.url(), address)

  goTo(4)
  await reload(ann)
  await showsTasks(ann, ["bread"])
  await ann.check("#tasks input")
  await reload(ann)
  assert.ok(await ann.isChecked("#tasks input"))

  goTo(5)
  await reload(ann)
  await add(ann, "milk")
  assert.deepEqual(await tasks(ann), ["bread", "milk"])
  await reload(ann)
  await showsTasks(ann, ["bread", "milk"])

  goTo(6)
  await reload(ann)
  assert.equal(await ann.inputValue("#title"), "Groceries")
  await ann.fill("#title", "Groceries for Ann")

  goTo(7)
  await reload(ann)
  assert.equal(await ann.inputValue("#title"), "Groceries for Ann")
  await shows(ann, "#status", /^saved$/)

  goTo(8)
  await reload(ann)
  await ann.check("#offline")
  await add(ann, "tea")
  await shows(ann, "#status", /^offline$/)
  await ann.uncheck("#offline")
  await shows(ann, "#status", /^saved$/)
  // The relay is killed, and started again; the page is loaded in between.
  world.expect(/WebSocket connection to/)
  await relay.kill()
  await add(ann, "rice")
  await shows(ann, "#status", /^offline$/)
  await reload(ann)
  await showsTasks(ann, ["bread", "milk", "tea", "rice"])
  await shows(ann, "#status", /^offline$/)
  await relay.start()
  await ann.evaluate(() => dispatchEvent(new Event("online")))
  await shows(ann, "#status", /^saved$/)

  goTo(9)
  const tab = await world.page(address, context)
  await loaded(tab)
  await ann.check("#offline")
  await add(tab, "jam")
  await showsTasks(ann, ["bread", "milk", "tea", "rice", "jam"])
  await ann.uncheck("#offline")
  await shows(tab, "#status", /^saved$/)
  await tab.close()

  goTo(10)
  const bob = await world.page(address)
  await loaded(bob)
  await showsTasks(bob, ["bread", "milk", "tea", "rice", "jam"])
  for (const page of [ann, bob]) await page.check("#offline")
  await add(ann, "by ann")
  await add(bob, "by bob")
  await bob.fill("#title", "Bob: Groceries for Ann")
  await ann.fill("#title", "Groceries for Ann and Bob")
  for (const page of [ann, bob]) await page.uncheck("#offline")
  for (const page of [ann, bob]) {
    await until("the tasks of both", async () => {
      const all = await tasks(page)
      return all.length === 7 && all.includes("by ann") && all.includes("by bob")
    })
    await until("the title of both", async () => (await page.inputValue("#title")) === "Bob: Groceries for Ann and Bob")
  }

  goTo(11)
  for (const page of [ann, bob]) await reload(page)
  const { length } = await tasks(ann)
  await add(ann, "hers")
  await until("her task at Bob", async () => (await tasks(bob)).includes("hers"))
  await add(bob, "his")
  await until("his task at Ann", async () => (await tasks(ann)).includes("his"))
  await ann.click("#undo")
  for (const page of [ann, bob]) {
    await until("her task to go", async () => !(await tasks(page)).includes("hers"))
    assert.equal((await tasks(page)).length, length + 1)
    assert.ok((await tasks(page)).includes("his"))
  }
  await ann.click("#redo")
  await until("her task to come back", async () => (await tasks(bob)).includes("hers"))

  goTo(12)
  assert.equal(LAST_STEP, 12)
  for (const page of [ann, bob]) await reload(page)
  for (const page of [ann, bob]) await shows(page, "#people", /^Guest \d+ is here$/)
  await ann.focus("#text")
  await shows(bob, "#people", /^Guest \d+ is adding a task$/)
  await ann.close({ runBeforeUnload: true })
  // A goodbye may be lost with its tab; then she is missed after 45 s.
  await shows(bob, "#people", /^$/, 60_000)
}, { ms: 180_000 })

story("the examples of the README run", async world => {
  const examples = blocks.filter(({ info }) => info === "js example")
  assert.ok(examples.length > 4, "the README has examples")
  const prelude = `
    import * as reconverge from "/package/dist/browser.js"
    const { Repo, ${[
      "Counter",
      "ImmutableString",
      "insertAt",
      "mark",
      "requestPersistence",
      "splice",
    ].join(", ")} } = reconverge
    import { inOrder, insertInOrder, moveInOrder } from "/package/dist/order.js"
    const repo = await Repo.open({ storage: "memory" })
    const handle = await repo.create({ text: "world", tasks: [], cards: [{ title: "first", text: "" }] })
  `
  const site = await world.site()
  for (const { text } of examples) {
    site.places.set("/example.js", `${prelude}\n${text}\nwindow.loaded = true\n`)
    site.places.set("/example.html", PAGE)
    await loaded(await world.page(`${site.url}/example.html`))
  }
  const code = blocks.filter(({ info, step }) => info.startsWith("js") && step === 0)
  assert.deepEqual(code, [], "all code is in the tutorial or an example")
})

story("the README's Content Security Policy is enough", async world => {
  const relay = await world.relay()
  const { text } = blocks.find(({ info }) => info === "http csp")
  const policy = text.replace(/^Content-Security-Policy: /, "").replace("wss://relay.example.org", relay.url).trim()
  const site = await world.site({
    "/csp.html": `<!doctype html>
      <meta http-equiv="Content-Security-Policy" content="${policy}">
      <link rel="icon" href="/icon.svg">
      <script type="module" src="/csp.js"></script>`,
    "/icon.svg": `<svg xmlns="http://www.w3.org/2000/svg"/>`,
    "/csp.js": `
      import { Repo } from "/package/dist/browser.js"
      const repo = await Repo.open({ relay: "${relay.url}" })
      const handle = await repo.create({ said: "hello" })
      await handle.whenSynced()
      window.loaded = true`,
  })
  // A Worker that may not start is a warning, which fails the test.
  await loaded(await world.page(`${site.url}/csp.html`))
})
