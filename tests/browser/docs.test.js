// The small apps of docs/frameworks.md and the service worker of docs/offline.md, as written there.

import assert from "node:assert/strict"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { compile } from "svelte/compiler"
import { compileScript, parse } from "vue/compiler-sfc"
import { until } from "../interop/lib/wait.js"
import { bundle, codeMirror, developing, svelte } from "./lib/bundle.js"
import { story } from "./lib/world.js"

const DOCS = readFileSync(new URL("../../docs/frameworks.md", import.meta.url), "utf8")
const here = fileURLToPath(new URL(".", import.meta.url))

/** Of each app, its files by their names. */
const apps = new Map()
for (const [, app, file, text] of DOCS.matchAll(/^```\w+ (\w+) (\S+)\n([^]*?)^```$/gm)) {
  apps.set(app, [...(apps.get(app) ?? []), [file, text]])
}

const vue = {
  name: "vue",
  setup({ onLoad }) {
    onLoad({ filter: /\.vue$/ }, async ({ path: filename }) => {
      const { descriptor, errors } = parse(await readFile(filename, "utf8"), { filename })
      assert.deepEqual(errors, [])
      const { content } = compileScript(descriptor, { id: "app", inlineTemplate: true })
      return { contents: content, loader: "js" }
    })
  },
}

const dist = name => fileURLToPath(new URL(`../../wasm/dist/${name}.js`, import.meta.url))
const bindings = ["react", "vue", "svelte", "codemirror", "order"].map(name => [`reconverge/${name}`, dist(name)])
const own = ["react", "react-dom", "vue"].map(name => [name, join(here, "node_modules", name)])
const options = {
  alias: { ...codeMirror, ...Object.fromEntries([...own, ...bindings]), reconverge: dist("browser") },
  plugins: [vue, svelte],
  conditions: ["svelte", "browser"],
  jsx: "automatic",
  define: developing,
}

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>app</title>
<link rel="icon" href="data:,">
<div id="app"></div>
<script type="module" src="/package/dist/app.js"></script>
`

/** Two browsers that show one document in this app. */
async function two(world, app, selector, given) {
  const relay = given ?? (await world.relay())
  const folder = mkdtempSync(join(here, ".docs-"))
  world.adopt({ dispose: async () => rmSync(folder, { recursive: true }) })
  for (const [file, text] of apps.get(app)) writeFileSync(join(folder, file), text.replace("ws://127.0.0.1:3030", relay.url))
  const main = apps.get(app).find(([file]) => file.startsWith("main."))[0]
  const script = await bundle(join(relative(here, folder), main), options)
  const site = await world.site({ "/app.html": PAGE, "/package/dist/app.js": script })
  const ann = await world.page(`${site.url}/app.html`)
  await ann.waitForSelector(selector)
  const bob = await world.page(await ann.evaluate(() => location.href))
  await bob.waitForSelector(selector)
  return [ann, bob]
}

const says = (page, what, read, expected) =>
  until(`${what} to be ${JSON.stringify(expected)}`, async () => JSON.stringify(await read(page)) === JSON.stringify(expected), {
    seen: () => page.evaluate(() => document.body.innerHTML),
  })

for (const app of ["react", "vue", "svelte"]) {
  story(`the app of the docs in ${app} shows what two people write`, async world => {
    const pages = await two(world, app, "#title")
    const [ann, bob] = pages
    const title = page => page.inputValue("#title")
    for (const page of pages) await says(page, "the title", title, "Groceries")
    await ann.fill("[name=text]", "bread")
    await ann.press("[name=text]", "Enter")
    const tasks = page => page.$$eval(".task", all => all.map(task => [task.textContent.trim(), task.querySelector("input").checked]))
    for (const page of pages) await says(page, "the tasks", tasks, [["bread", false]])
    await bob.click(".task input")
    for (const page of pages) await says(page, "the tasks", tasks, [["bread", true]])
    await ann.focus("#title")
    await ann.press("#title", "Home")
    await Promise.all([ann.keyboard.type("our own "), bob.locator("#title").press("End").then(() => bob.keyboard.type(" of today"))])
    for (const page of pages) await says(page, "the title", title, "our own Groceries of today")
    for (const page of pages) await says(page, "the status", page => page.textContent("#status"), "saved; 1 others here")
  })
}

story("the app of the docs in TypeScript shows an order and undo, and lets people sign out", async world => {
  const relay = await world.relay()
  const pages = await two(world, "typed", "#title", relay)
  const [ann, bob] = pages
  const items = page => page.$$eval(".item .text", all => all.map(({ value }) => value))
  for (const text of ["tent", "map"]) {
    const count = await ann.locator(".item").count()
    await ann.click("#add")
    await ann.locator(".item .text").nth(count).fill(text)
  }
  for (const page of pages) await says(page, "the items", items, ["tent", "map"])
  await ann.locator(".up").nth(1).click()
  for (const page of pages) await says(page, "the items", items, ["map", "tent"])
  await ann.locator(".item [type=checkbox]").nth(1).click()
  for (const page of pages) await says(page, "the status", page => page.textContent("#status"), "saved; 1 done")
  await ann.click("#undo")
  for (const page of pages) await says(page, "the status", page => page.textContent("#status"), "saved; 0 done")
  await ann.locator(".item .text").nth(0).focus()
  await until("bob to see where ann is", () => bob.$$eval(".item", ([item]) => /Guest \d+/.test(item.textContent)))

  // Out in one tab is out in the other one of this browser.
  const other = await world.page(ann.url(), ann.context())
  await other.waitForSelector(".item")
  world.expect(/deleted|error occurred/i)
  await ann.click("#leave")
  await ann.waitForSelector("#out")
  await other.waitForSelector("#gone")
  assert.match(await other.textContent("#gone"), /^It was deleted/)
  // What no relay has is not lost unasked.
  world.expect(/WebSocket/)
  await relay.kill()
  await bob.click("#add")
  await bob.click("#leave")
  await bob.click("#back")
  await says(bob, "the items", items, ["map", "tent", ""])
  await bob.click("#leave")
  await bob.click("#anyway")
  await bob.waitForSelector("#out")
})

story("the component of the docs in Svelte compiles without a warning", async () => {
  for (const [filename, text] of apps.get("svelte").filter(([file]) => file.endsWith(".svelte"))) {
    const { warnings } = compile(text, { filename, generate: "client" })
    assert.deepEqual(warnings.map(({ code }) => code), [])
  }
})

story("the app of the docs in CodeMirror shows what two people write, and their carets", async world => {
  const pages = await two(world, "codemirror", ".cm-content")
  const [ann, bob] = pages
  await ann.click(".cm-content")
  await ann.keyboard.press("Control+End")
  await ann.keyboard.type("hers")
  const text = page => page.$$eval(".cm-line", lines => lines.map(line => line.textContent))
  for (const page of pages) await says(page, "the text", text, ["Notes", "hers"])
  await until("ann's caret", () => bob.$eval(".cm-peerName", name => /^Guest \d+$/.test(name.textContent)).catch(() => false))
})

story("a page with the service worker of the docs loads without a network", async world => {
  const text = readFileSync(new URL("../../docs/offline.md", import.meta.url), "utf8")
  const block = file => text.match(new RegExp(`^\`\`\`js ${file}\n([^]*?)^\`\`\`$`, "m"))[1]
  const page = `<!doctype html>
    <meta charset="utf-8">
    <title>app</title>
    <link rel="icon" href="data:,">
    <script type="module">
      import * as reconverge from "/package/dist/browser.js"
      const repo = await reconverge.Repo.open()
      const url = location.hash.slice(1)
      window.doc = url ? await repo.find(url) : await repo.create({ n: 0 })
      location.hash = doc.url
    </script>
    <script>${block("page.js")}</script>`
  const site = await world.site({ "/app.html": page, "/sw.js": block("sw.js") })
  const tab = await world.page(`${site.url}/app.html`)
  await tab.waitForFunction(() => window.doc !== undefined && navigator.serviceWorker.controller !== null)
  const again = async () => {
    await tab.reload()
    await tab.waitForFunction(() => window.doc !== undefined)
  }
  await again()
  await tab.evaluate(() => doc.change(draft => (draft.n = 1)))
  await tab.evaluate(() => doc.whenSynced({ level: "local" }))
  world.expect(/ERR_|Failed to load|fetch/)
  await site.stop()
  await again()
  assert.equal(await tab.evaluate(() => doc.doc().n), 1)
})

story("all code of that page is in an app", async () => {
  assert.deepEqual([...apps.keys()], ["react", "typed", "vue", "svelte", "codemirror"])
  assert.equal(DOCS.match(/^```\w/gm).length, [...apps.values()].flat().length)
})
