// Small apps in React 18 and 19, Vue and Svelte, made by a bundler from the package.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { bundle, developing, svelte } from "./lib/bundle.js"
import { story } from "./lib/world.js"

const own = new URL("node_modules/", import.meta.url).pathname

/** How an app is bundled; what the package's entries import is this folder's. */
const APPS = {
  "React 19": ["pages/react.js", { alias: { react: `${own}react`, "react-dom": `${own}react-dom` } }],
  "React 18": ["pages/react.js", { alias: { react: `${own}react-18`, "react-dom": `${own}react-dom-18` } }],
  Vue: ["pages/vue.js", { alias: { vue: `${own}vue` } }],
  Svelte: ["pages/svelte.js", { plugins: [svelte], conditions: ["svelte", "browser"] }],
}

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>app</title>
<link rel="icon" href="data:,">
<script type="module" src="/package/dist/app.js"></script>
`

async function site(world, name) {
  const [path, options] = APPS[name]
  return world.site({ "/app.html": PAGE, "/package/dist/app.js": await bundle(path, { define: developing, ...options }) })
}

/** A browser with a repo, whose documents that are found and released are counted. */
async function user(world, site, relay, context) {
  const page = await world.page(`${site.url}/app.html`, context)
  await page.waitForFunction(() => window.show !== undefined)
  await page.evaluate(async relay => {
    window.repo = await reconverge.Repo.open({ relay })
    window.held = 0
    const find = repo.find.bind(repo)
    repo.find = async (...args) => {
      const handle = await find(...args)
      held += 1
      const release = handle.release.bind(handle)
      handle.release = () => {
        held -= 1
        release()
      }
      return handle
    }
  }, relay.url)
  return page
}

const said = (page, id) => page.evaluate(id => document.querySelector(id)?.textContent ?? document.querySelector(id)?.value, id)
const says = (page, id, expected) =>
  until(`${id} to say ${expected}`, async () => (await said(page, id)) === expected, { seen: () => page.evaluate(() => document.body.innerHTML) })
const title = page => page.evaluate(() => document.querySelector("#title")?.value)
const titled = (page, expected) =>
  until(`the title ${expected}`, async () => (await title(page)) === expected, { seen: () => title(page) })

const make = page =>
  page.evaluate(async () => {
    window.made = await repo.create({ title: "first", items: ["a"], other: 0 })
    await made.whenSynced()
    return made.url
  })

for (const name of Object.keys(APPS)) {
  story(`${name}: an app shows a document, the edits of others and who is there`, async world => {
    const relay = await world.relay()
    const app = await site(world, name)
    const [ann, bob] = [await user(world, app, relay), await user(world, app, relay)]
    const url = await make(ann)
    await ann.evaluate(url => show({ url, name: "ann" }), url)
    await titled(ann, "first")
    await bob.evaluate(url => void show({ url, name: "bob" }), url)
    await titled(bob, "first")
    await says(bob, "#count", "1 a")
    await bob.locator("#title").fill("bob's")
    await titled(ann, "bob's")
    await ann.evaluate(() => made.change(d => d.items.push("b")))
    await says(bob, "#count", "2 b")
    await says(ann, "#people", "saved: bob at 0")
    await ann.evaluate(() => present({ at: 3 }))
    await says(bob, "#people", "saved: ann at 3")
    await says(ann, "#all", "saved, true, connected")

    await relay.kill()
    world.expect(/WebSocket connection to/)
    await ann.locator("#title").fill("offline")
    await until("ann to be offline", async () => (await said(ann, "#people")).startsWith("offline"))
    await until("all to be offline", async () => (await said(ann, "#all")).startsWith("offline, false, "))
    await relay.start()
    await ann.evaluate(() => dispatchEvent(new Event("online")))
    await bob.evaluate(() => dispatchEvent(new Event("online")))
    await titled(bob, "offline")
    await says(ann, "#people", "saved: bob at 0")
    await says(ann, "#all", "saved, true, connected")

    await bob.evaluate(() => unmount())
    await says(ann, "#people", "saved: ")
  })
}

for (const name of Object.keys(APPS)) {
  story(`${name}: what can be taken back in a part of the document is shown, and taken back`, async world => {
    const page = await user(world, await site(world, name), await world.relay())
    const url = await make(page)
    await page.evaluate(url => show({ url, name: "ann" }), url)
    await says(page, "#undo", "false false")
    await page.evaluate(() => made.change(d => (d.other = 1)))
    await page.evaluate(() => made.change(d => d.items.push("b")))
    await says(page, "#undo", "true false")
    assert.equal(await page.evaluate(() => made.undoable() === made.undoable()), true)
    assert.equal(await page.evaluate(() => step.undo()), "all")
    await says(page, "#undo", "false true")
    await says(page, "#count", "1 a")
    assert.equal(await page.evaluate(() => step.redo()), "all")
    await says(page, "#undo", "true false")
  })
}

for (const name of ["React 19", "React 18"]) {
  story(`${name}: what is not there yet is shown when it comes, and takes nothing else down`, async world => {
    const relay = await world.relay()
    const app = await site(world, name)
    const [ann, bob] = [await user(world, app, relay), await user(world, app, relay)]
    const url = await make(ann)
    const picture = await bob.evaluate(async () => {
      repo.goOffline()
      window.picture = await repo.create({ n: 1 })
      return window.picture.url
    })
    await ann.evaluate(options => show(options), { url, name: "ann", picture })
    await says(ann, "#picture", "unavailable undefined unavailable")
    await titled(ann, "first")
    await bob.evaluate(() => {
      repo.goOnline()
      return picture.whenSynced()
    })
    await ann.evaluate(() => repo.goOffline())
    await until("ann to be offline", async () => (await said(ann, "#all")).includes("false"))
    await ann.evaluate(() => repo.goOnline())
    await says(ann, "#picture", "ready 1 undefined")
    await bob.evaluate(() => window.picture.change(d => (d.n = 2)))
    await says(ann, "#picture", "ready 2 undefined")
    await ann.evaluate(url => repo.delete(url), picture)
    await says(ann, "#picture", "failed undefined deleted")
    await ann.evaluate(options => show(options), { url, name: "ann", picture: "nonsense" })
    await until("it to fail", async () => (await said(ann, "#picture")).startsWith("failed undefined"))
    // What was deleted here is looked for anew.
    await ann.evaluate(options => show(options), { url, name: "ann", picture })
    await says(ann, "#picture", "ready 2 undefined")
    await titled(ann, "first")
    await ann.evaluate(() => unmount())
  })
}

for (const name of Object.keys(APPS)) {
  story(`${name}: a document that is deleted, or wiped in another tab, is not shown any more, and told as deleted`, async world => {
    const relay = await world.relay()
    const app = await site(world, name)
    const context = await world.context()
    const [ann, tab] = [await user(world, app, relay, context), await user(world, app, relay, context)]
    if (name.startsWith("React")) world.expect(/deleted|error occurred/i)
    for (const remove of [url => repo.delete(url), () => repo.wipe()]) {
      const url = await make(tab)
      await ann.evaluate(url => show({ url, name: "ann" }), url)
      await titled(ann, "first")
      await tab.evaluate(remove, url)
      await says(ann, "#error", "deleted")
      assert.equal(await title(ann), undefined)
      if (name.startsWith("React")) assert.ok(await ann.evaluate(() => failure instanceof reconverge.RepoError))
      if (name === "Svelte") await ann.evaluate(() => unmount())
    }
  })
}

const UNKNOWN = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ"

for (const name of ["React 19", "React 18", "Vue"]) {
  story(`${name}: a document that nobody has is told as unavailable, and another can be shown then`, async world => {
    const relay = await world.relay()
    const page = await user(world, await site(world, name), relay)
    world.expect(/unavailable|error occurred|RepoError|no relay|nobody/i)
    await page.evaluate(url => show({ url, name: "ann" }), UNKNOWN)
    await says(page, "#wait", "wait")
    await says(page, "#error", "unavailable")
    const url = await make(page)
    await page.evaluate(url => show({ url, name: "ann" }), url)
    await titled(page, "first")
  })
}

for (const name of ["React 19", "React 18"]) {
  for (const strict of [true, false]) {
    story(`${name}${strict ? ", strict" : ""}: it renders what changed, and holds a handle as long as it is shown`, async world => {
      const relay = await world.relay()
      const page = await user(world, await site(world, name), relay)
      await page.clock.install()
      const url = await make(page)
      await page.evaluate(([url, strict]) => show({ url, name: "ann", strict }), [url, strict])
      await titled(page, "first")
      await says(page, "#count", "1 a")
      await page.clock.runFor(1000)
      const renders = () => page.evaluate(() => ({ ...window.renders }))
      const twice = strict ? 2 : 1
      const before = await renders()
      // Nobody reads this.
      await page.evaluate(() => made.change(d => (d.other += 1)))
      await page.evaluate(() => made.change(d => d.items.push("b")))
      await says(page, "#count", "2 b")
      const after = await renders()
      assert.equal(after.title, before.title)
      assert.equal(after.count, before.count + twice)
      await page.evaluate(() => made.change(d => (d.title = "second")))
      await titled(page, "second")
      const last = await renders()
      assert.equal(last.title, after.title + twice)
      assert.equal(last.count, after.count)

      assert.equal(await page.evaluate(() => held), 1)
      await page.clock.runFor(60_000)
      assert.equal(await page.evaluate(() => held), 1)
      await page.evaluate(() => unmount())
      await page.clock.runFor(60_000)
      assert.equal(await page.evaluate(() => held), 0)
      // It can be shown again.
      await page.evaluate(url => show({ url, name: "ann" }), url)
      await page.clock.runFor(1000)
      await titled(page, "second")
      assert.equal(await page.evaluate(() => held), 1)
    })
  }
}

story("Vue: another url shows another document and lets go of the first, and so does unmounting", async world => {
  const relay = await world.relay()
  const page = await user(world, await site(world, "Vue"), relay)
  const urls = [await make(page), await make(page)]
  await page.evaluate(() => made.change(d => (d.title = "other")))
  await page.evaluate(url => show({ url, name: "ann" }), urls[0])
  await titled(page, "first")
  assert.equal(await page.evaluate(() => held), 1)
  await page.evaluate(url => show({ url }), urls[1])
  await titled(page, "other")
  assert.equal(await page.evaluate(() => held), 1)
  await page.evaluate(() => unmount())
  assert.equal(await page.evaluate(() => held), 0)
})
