// The demo, as two visitors use it. It has to be built: `npm run build` in examples/demo.

import assert from "node:assert/strict"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { until } from "../interop/lib/wait.js"
import { story } from "./lib/world.js"

const DEMO = fileURLToPath(new URL("../../examples/demo/dist/", import.meta.url))

const notes = page => page.evaluate(() => document.querySelector("#notes .cm-content").innerText)
const items = page =>
  page.evaluate(() => [...document.querySelectorAll(".item-text")].map(({ value }) => value))
const attribute = (page, id, name) =>
  page.evaluate(([id, name]) => document.getElementById(id).getAttribute(name), [id, name])
const status = page => page.evaluate(() => document.getElementById("status").textContent)

const becomes = (what, read, expected) =>
  until(`${what} to be ${JSON.stringify(expected)}`, async () => {
    return JSON.stringify(await read()) === JSON.stringify(expected)
  }, { seen: read })

async function visit(world, url, context) {
  const page = await world.page(url, context)
  await page.waitForSelector("body.ready, body.failed")
  assert.equal(await page.textContent("#failure-reason"), "")
  return page
}

story("two visitors of the demo write, plan, draw, and look back", async world => {
  assert.ok(existsSync(DEMO + "index.html"), "the demo is not built; run 'npm run build' in examples/demo")
  const relay = await world.relay()
  const site = await world.site({ "/demo/": DEMO })
  const address = `${site.url}/demo/index.html?relay=${relay.url}`
  const contexts = [
    await world.context({ viewport: { width: 1280, height: 800 } }),
    await world.context({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true }),
  ]
  const ann = await visit(world, address, contexts[0])
  await ann.click("#title")
  await ann.keyboard.type("Walk")
  await ann.click("#notes .cm-content")
  await ann.keyboard.type("Meet at ten.")
  await ann.click("#add-text")
  for (const item of ["tickets", "thermos", "map"]) {
    await ann.keyboard.type(item)
    await ann.keyboard.press("Enter")
  }
  await becomes("ann's status", () => status(ann), "Saved")

  const bob = await visit(world, ann.url(), contexts[1])
  await becomes("bob's notes", () => notes(bob), "Meet at ten.")
  assert.equal(await bob.inputValue("#title"), "Walk")
  assert.deepEqual(await items(bob), ["tickets", "thermos", "map"])
  await until("both to see each other", async () => {
    const here = await Promise.all([ann, bob].map(page => attribute(page, "others", "aria-label")))
    return here.every(label => label.startsWith("Also here"))
  })
  const wide = await bob.evaluate(() => document.documentElement.scrollWidth)
  assert.equal(wide, 360, "nothing is wider than a phone")

  // By keyboard, as not everybody drags.
  await ann.focus(".item:nth-child(3) .item-grip")
  await ann.keyboard.press("ArrowUp")
  await ann.keyboard.press("ArrowUp")
  await becomes("bob's list", () => items(bob), ["map", "tickets", "thermos"])

  const board = await ann.locator("#canvas").boundingBox()
  await ann.mouse.move(board.x + 20, board.y + 20)
  await ann.mouse.down()
  await ann.mouse.move(board.x + 90, board.y + 60, { steps: 10 })
  await ann.mouse.up()
  await becomes("bob's board", () => attribute(bob, "canvas", "aria-label"), "Drawing board, 1 stroke")

  await bob.click("#offline")
  await becomes("bob's status", () => status(bob), "Offline")
  await bob.click("#title")
  await bob.keyboard.press("End")
  await bob.keyboard.type("ing")
  await bob.click("#offline")
  await becomes("bob's status", () => status(bob), "Saved")
  await becomes("ann's title", () => ann.inputValue("#title"), "Walking")

  // What ann takes back is hers.
  await ann.click("#undo")
  await becomes("bob's board", () => attribute(bob, "canvas", "aria-label"), "Drawing board, 0 strokes")
  assert.equal(await bob.inputValue("#title"), "Walking")

  await ann.click("#history")
  // The slider is there when the history is.
  await ann.waitForSelector("#past:not([hidden])")
  await ann.evaluate(() => {
    const when = document.getElementById("when")
    when.value = "1"
    when.dispatchEvent(new Event("input"))
  })
  await becomes("ann's list in the past", () => items(ann), [])
  await ann.click("#now")
  await becomes("ann's list", () => items(ann), ["map", "tickets", "thermos"])

  const [replica] = await Promise.all([contexts[0].waitForEvent("page"), ann.click("#replica")])
  await replica.waitForSelector("body.ready")
  await becomes("the replica's notes", () => notes(replica), "Meet at ten.")
})
