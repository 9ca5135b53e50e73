// Two people in one text, in CodeMirror, with their own keyboards, clipboards and undo keys.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { bundle, codeMirror } from "./lib/bundle.js"
import { story } from "./lib/world.js"

const EDITORS = `<!doctype html>
<meta charset="utf-8">
<title>editors</title>
<link rel="icon" href="data:,">
<script type="module" src="/package/dist/editors.js"></script>
`

/** Two browsers that edit `text`, as `ann` and `bob`. */
async function two(world, text) {
  const relay = await world.relay()
  const script = await bundle("pages/editors.js", { alias: codeMirror })
  const site = await world.site({ "/editors.html": EDITORS, "/package/dist/editors.js": script })
  const pages = []
  let url
  for (const name of ["Ann", "Bob"]) {
    const page = await world.page(`${site.url}/editors.html`)
    await page.waitForFunction(() => window.start !== undefined)
    const options = { relay: relay.url, user: { name, color: "#0f766e" }, ...(url ? { url } : { text }) }
    url = await page.evaluate(options => start(options), options)
    await page.evaluate(() => doc.whenSynced())
    pages.push(page)
  }
  return pages
}

const shown = page => page.evaluate(() => view.state.doc.toString())
const text = page => page.evaluate(() => doc.doc().text)

const place = (page, anchor, head = anchor) =>
  page.evaluate(([anchor, head]) => {
    view.focus()
    view.dispatch({ selection: { anchor, head } })
  }, [anchor, head])

/** Waits until editors and documents of all pages have the same text, and gives it. */
async function agree(pages, is = () => true) {
  const texts = async () => (await Promise.all(pages.map(async page => [await shown(page), await text(page)]))).flat()
  const same = async () => {
    const all = await texts()
    return new Set(all).size === 1 && is(all[0])
  }
  const seen = async () => (await texts()).map(found => found.slice(0, 200))
  await until("all to show the same text", same, { seen })
  for (const page of pages) assert.deepEqual(await page.evaluate(() => unlike), [])
  return (await texts())[0]
}

const becomes = (pages, expected) => agree(pages, found => found === expected)

/** The letters of `found` that are in `letters`, in their order. */
const only = (found, letters) => [...found].filter(char => letters.includes(char)).join("")

story("two people type at once, at the same place", async world => {
  const pages = await two(world, "[]")
  const [ann, bob] = pages
  const [hers, his] = ["abcdefghij".repeat(12), "0123456789".repeat(12)]
  for (const page of pages) await place(page, 1)
  await Promise.all([ann.keyboard.type(hers, { delay: 3 }), bob.keyboard.type(his, { delay: 4 })])
  const found = await agree(pages, found => found.length === hers.length + his.length + 2)
  assert.equal(only(found, "abcdefghij"), hers)
  assert.equal(only(found, "0123456789"), his)
  assert.ok(found.startsWith("[") && found.endsWith("]"))
})

story("a large text is pasted, with emoji and lines of any kind", async world => {
  const pages = await two(world, "before after")
  const [ann, bob] = pages
  await place(ann, 7)
  await place(bob, 0)
  const line = "lorem ipsum \u{1F600} dolor \u{1F469}\u200D\u{1F467} sit amet e\u0301"
  const lines = Array.from({ length: 4000 }, (_, n) => `${n} ${line}`)
  const pasting = ann.evaluate(lines => {
    const clipboardData = new DataTransfer()
    clipboardData.setData("text/plain", lines.join("\r\n"))
    view.contentDOM.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))
  }, lines)
  await bob.keyboard.type("bob ")
  await pasting
  const expected = `bob before ${lines.join("\n")}after`
  await becomes(pages, expected)
})

story("emoji are typed and deleted as one, between those of another", async world => {
  const pages = await two(world, "\u{1F600}\u{1F601}\u{1F602}")
  const [ann, bob] = pages
  await place(ann, 4)
  await place(bob, 2)
  await Promise.all([ann.keyboard.press("Backspace"), bob.keyboard.insertText("\u{1F469}\u200D\u{1F467}")])
  await becomes(pages, "\u{1F600}\u{1F469}\u200D\u{1F467}\u{1F602}")
  await place(bob, "\u{1F600}\u{1F469}\u200D\u{1F467}".length)
  await bob.keyboard.press("Backspace")
  await becomes(pages, "\u{1F600}\u{1F602}")
})

story("the undo keys take back only one's own edits", async world => {
  const pages = await two(world, "one two three")
  const [ann, bob] = pages
  await place(ann, 4)
  await ann.keyboard.type("ANN ")
  await becomes(pages, "one ANN two three")
  await place(bob, 0)
  await bob.keyboard.type("BOB ")
  await place(bob, 9)
  await bob.keyboard.type("-")
  await becomes(pages, "BOB one A-NN two three")
  await ann.keyboard.press("Control+z")
  await becomes(pages, "BOB one -two three")
  // There is nothing more of hers.
  await ann.keyboard.press("Control+z")
  await ann.keyboard.press("Control+Shift+Z")
  const again = await agree(pages, found => found.includes("NN"))
  assert.equal(again.replace("-", ""), "BOB one ANN two three")
  await ann.keyboard.press("Control+z")
  await becomes(pages, "BOB one -two three")
  await bob.keyboard.press("Control+z")
  await agree(pages, found => !found.includes("-"))
  assert.ok(!(await text(bob)).includes("ANN"))
})

story("the caret and the selection of another are where they should be, after edits before them", async world => {
  const pages = await two(world, "one two three\nfour five six")
  const [ann, bob] = pages
  await place(ann, 18, 14) // "four", from its end
  /** Where bob sees ann, and where that should be, in pixels. */
  const seen = () =>
    bob.evaluate(() => {
      const [caret] = document.querySelectorAll(".cm-peerCaret")
      const [selection] = document.querySelectorAll(".cm-peerSelection")
      if (!caret || !selection) return undefined
      const from = view.state.doc.toString().indexOf("four")
      const [start, end] = [view.coordsAtPos(from), view.coordsAtPos(from + 4)]
      const box = caret.getBoundingClientRect()
      const { left, right } = selection.getBoundingClientRect()
      const off = [box.left + box.width / 2 - start.left, box.top - start.top, left - start.left, right - end.left]
      return { name: caret.innerText, off: Math.max(...off.map(Math.abs)) }
    })
  const right = () =>
    until("ann's caret and selection at the word", async () => {
      const found = await seen()
      return found?.name === "Ann" && found.off < 3
    }, { seen })
  await right()
  await place(bob, 0)
  await bob.keyboard.type("a new line\nand \u{1F600} ")
  await right()
  await place(bob, (await text(bob)).indexOf("four"))
  await bob.keyboard.type("just before ")
  await right()
  await ann.evaluate(() => view.dispatch({ changes: { from: 0, to: 5, insert: "" } }))
  await agree(pages)
  await right()
})
