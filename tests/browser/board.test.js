// The team board of examples/board, as it is built, and what happens to its cards when several people
// work on them.

import assert from "node:assert/strict"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { until } from "../interop/lib/wait.js"
import { BROWSERS } from "./lib/browsers.js"
import { story } from "./lib/world.js"

const DIST = fileURLToPath(new URL("../../examples/board/dist/", import.meta.url))
assert.ok(existsSync(DIST), "the board is not built: run 'npm install --no-save && npm run build' in examples/board")

/** Browsers of as many people on one board, which has a card. */
async function people(world, count = 2) {
  const relay = await world.relay()
  const site = await world.site({ "/board/": DIST })
  const pages = []
  for (let n = 0; n < count; n++) {
    const page = await world.page(pages[0] ? await pages[0].evaluate(() => location.href) : `${site.url}/board/index.html?relay=${relay.url}`)
    await page.waitForSelector("[data-column=todo]")
    if (n === 0) await add(page, "todo", "Bake")
    await page.waitForSelector("article")
    await status(page, "saved")
    pages.push(page)
  }
  return { relay, pages }
}

async function add(page, column, title) {
  await page.fill(`[data-column=${column}] form input`, title)
  await page.press(`[data-column=${column}] form input`, "Enter")
}

const status = (page, expected) => until(`the status ${expected}`, async () => (await page.textContent(".status")) === expected)

/** The titles of the cards, by their columns. */
const cards = page =>
  page.$$eval("[data-column]", sections =>
    Object.fromEntries(sections.map(section => [section.dataset.column, [...section.querySelectorAll("h3")].map(title => title.textContent)]))
  )

const shows = (pages, expected) =>
  until(`all to show ${JSON.stringify(expected)}`, async () => {
    const all = await Promise.all(pages.map(cards))
    return all.every(shown => JSON.stringify(shown) === JSON.stringify({ todo: [], doing: [], done: [], ...expected }))
  }, { seen: () => Promise.all(pages.map(cards)) })

const drag = (page, title, to) => page.dragAndDrop(`article:has(h3:text-is("${title}"))`, to)
const open = (page, title) => page.click(`article:has(h3:text-is("${title}"))`)

story("cards are added, dragged and renamed, and everybody sees it", async world => {
  const { pages } = await people(world)
  const [ann, bob] = pages
  await shows(pages, { todo: ["Bake"] })
  await add(bob, "todo", "Clean")
  await add(bob, "done", "Shop")
  await shows(pages, { todo: ["Bake", "Clean"], done: ["Shop"] })
  await drag(ann, "Clean", 'article:has(h3:text-is("Shop"))')
  await shows(pages, { todo: ["Bake"], done: ["Clean", "Shop"] })
  await drag(bob, "Bake", "[data-column=doing] h2")
  await shows(pages, { doing: ["Bake"], done: ["Clean", "Shop"] })
  await open(ann, "Shop")
  await ann.locator("aside .title").press("End")
  await ann.keyboard.type("ping")
  await shows(pages, { doing: ["Bake"], done: ["Clean", "Shopping"] })
  await until("bob to see who has it open", async () => /^Guest/.test((await bob.textContent("article small").catch(() => "")) ?? ""))
})

story("a card that two people move without a network is there once, with what a third one wrote", async world => {
  const { relay, pages } = await people(world, 3)
  const [ann, bob, cem] = pages
  await relay.kill()
  world.expect(/WebSocket/)
  await drag(ann, "Bake", "[data-column=doing] h2")
  await drag(bob, "Bake", "[data-column=done] h2")
  await open(cem, "Bake")
  await cem.locator("aside .title").press("End")
  await cem.keyboard.type(" bread")
  for (const page of pages) await status(page, "offline")
  await relay.start()
  for (const page of pages) await page.evaluate(() => dispatchEvent(new Event("online")))
  const agreed = async () => {
    const all = await Promise.all(pages.map(cards))
    return new Set(all.map(shown => JSON.stringify(shown))).size === 1 && Object.values(all[0]).flat().join() === "Bake bread"
  }
  await until("all to show it once", agreed, { seen: () => Promise.all(pages.map(cards)) })
})

story("two people write in a card, one of them puts it away, and nothing is lost", async world => {
  const { pages } = await people(world)
  const [ann, bob] = pages
  for (const page of pages) {
    await open(page, "Bake")
    await page.click(".cm-content")
  }
  await Promise.all([ann.keyboard.type("flour "), bob.keyboard.type("water ")])
  const text = page => page.textContent(".cm-content")
  const both = async () => {
    const [one, other] = await Promise.all(pages.map(text))
    return one === other && one.includes("flour") && one.includes("water")
  }
  await until("both to have both texts", both, { seen: () => Promise.all(pages.map(text)) })
  await until("ann's caret at bob", () => bob.$eval(".cm-peerName", name => /^Guest/.test(name.textContent)).catch(() => false))
  await ann.click("aside >> text=Put away")
  await shows(pages, {})
  await bob.keyboard.type("salt ")
  await bob.click("footer button")
  await shows(pages, { todo: ["Bake"] })
  await open(ann, "Bake")
  await until("what bob wrote", async () => (await text(ann)).includes("salt"))
  // One's own edits are taken back, not the others'.
  await bob.click("text=Undo")
  await shows(pages, {})
  await bob.click("text=Redo")
  await shows(pages, { todo: ["Bake"] })
})

story("a picture is shown to others, and one that is not there takes nothing else down", async world => {
  const { pages } = await people(world)
  const [ann, bob] = pages
  const png = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64")
  await open(ann, "Bake")
  await ann.setInputFiles("aside input[type=file]", { name: "bread.png", mimeType: "image/png", buffer: png })
  const isShown = page => page.$eval("article img", image => image.complete && image.naturalWidth === 1).catch(() => false)
  for (const page of pages) await until("the picture", () => isShown(page))
  await add(bob, "todo", "Lost")
  await shows(pages, { todo: ["Bake", "Lost"] })
  await ann.evaluate(async () => {
    const board = await repo.find(location.hash.slice(1))
    const [id] = Object.entries(board.doc().cards).find(([, card]) => card.title === "Lost") ?? []
    board.change(draft => (draft.cards[id].picture = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ"))
  })
  for (const page of pages) await until("what is missing to be told", async () => (await page.textContent(".picture")) === "Picture: unavailable")
  await shows(pages, { todo: ["Bake", "Lost"] })
})

story("the history of a card names its authors, and leads back", async world => {
  const { pages } = await people(world)
  const [ann, bob] = pages
  await open(bob, "Bake")
  await bob.locator("aside .title").fill("Burn")
  await shows(pages, { todo: ["Burn"] })
  await open(ann, "Burn")
  const entries = () => ann.$$eval("aside li", all => all.map(entry => entry.firstChild.textContent))
  const names = await Promise.all(pages.map(page => page.evaluate(() => localStorage.name)))
  await until("both authors", async () => JSON.stringify(await entries()) === JSON.stringify([names[1], names[0]]), { seen: entries })
  await ann.click("aside li:last-child button")
  await shows(pages, { todo: ["Bake"] })
})

// Firefox and WebKitGTK have no driver with a mouse and keys here: pages are asked to do what these do.

const steps = {
  add: title => {
    const input = document.querySelector("[data-column=todo] form input")
    input.focus()
    document.execCommand("insertText", false, title)
    input.form.requestSubmit()
  },
  drag: async ([title, key]) => {
    const card = [...document.querySelectorAll("article")].find(article => article.querySelector("h3").textContent === title)
    const tell = (target, type) => target.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: new DataTransfer() }))
    tell(card, "dragstart")
    // The board is drawn anew in between, as it is for people.
    await new Promise(resolve => setTimeout(resolve, 100))
    tell(document.querySelector(`[data-column=${key}] h2`), "drop")
  },
  open: title => {
    ;[...document.querySelectorAll("article")].find(article => article.querySelector("h3").textContent === title).click()
  },
  write: ([selector, text]) => {
    const element = document.querySelector(selector)
    element.focus()
    if (element.setSelectionRange) element.setSelectionRange(element.value.length, element.value.length)
    document.execCommand("insertText", false, text)
  },
  press: label => {
    ;[...document.querySelectorAll("button")].find(button => button.textContent === label).click()
  },
  cards: () =>
    Object.fromEntries([...document.querySelectorAll("[data-column]")].map(section => [section.dataset.column, [...section.querySelectorAll("h3")].map(title => title.textContent)])),
  details: () => ({ title: document.querySelector("aside .title")?.value, text: document.querySelector("aside .cm-content")?.textContent }),
  status: () => document.querySelector(".status")?.textContent,
}

for (const kind of BROWSERS.filter(kind => kind !== "Chromium")) {
  story(`${kind} and Chromium on one board: cards, texts, undo, a reload without the relay`, async world => {
    const relay = await world.relay()
    const site = await world.site({ "/board/": DIST })
    const browser = await world.browser(kind)
    const ann = await browser.tab()
    await ann.goto(`${site.url}/board/index.html?relay=${relay.url}`)
    const ask = (page, step, argument) => page.evaluate(steps[step], argument)
    const becomes = (page, step, expected) =>
      until(`${step} to be ${JSON.stringify(expected)}`, async () => JSON.stringify(await ask(page, step)) === JSON.stringify(expected), { seen: () => ask(page, step) })
    await becomes(ann, "cards", { todo: [], doing: [], done: [] })
    await ask(ann, "add", "Bake")
    await becomes(ann, "cards", { todo: ["Bake"], doing: [], done: [] })
    await becomes(ann, "status", "saved")
    const address = await ann.evaluate(() => location.href)
    const bob = await world.page(address)
    await becomes(bob, "cards", { todo: ["Bake"], doing: [], done: [] })
    await ask(ann, "drag", ["Bake", "doing"])
    for (const page of [ann, bob]) await becomes(page, "cards", { todo: [], doing: ["Bake"], done: [] })
    for (const page of [ann, bob]) {
      await ask(page, "open", "Bake")
      await until("the card's text", async () => (await ask(page, "details")).text !== undefined)
    }
    await ask(ann, "write", ["aside .title", "d"])
    await ask(bob, "write", ["aside .cm-content", "flour"])
    for (const page of [ann, bob]) await becomes(page, "details", { title: "Baked", text: "flour" })
    await ask(ann, "press", "Undo")
    for (const page of [ann, bob]) await becomes(page, "details", { title: "Bake", text: "flour" })
    await ask(ann, "press", "Undo")
    for (const page of [ann, bob]) await becomes(page, "cards", { todo: ["Bake"], doing: [], done: [] })
    await ask(ann, "press", "Redo")
    await becomes(ann, "cards", { todo: [], doing: ["Bake"], done: [] })
    await becomes(ann, "status", "saved")
    world.expect(/WebSocket/)
    await relay.kill()
    await ann.reload()
    await becomes(ann, "cards", { todo: [], doing: ["Bake"], done: [] })
    await becomes(ann, "status", "offline")
  }, { ms: 120_000 })
}
