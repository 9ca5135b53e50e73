// A page of pages/places.js, with texts of a document in inputs and editors, steered from the test.

import { until } from "../../interop/lib/wait.js"
import { bundle, codeMirror, developing } from "./bundle.js"
import { create, find, open, synced } from "./doc.js"

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>places</title>
<link rel="icon" href="data:,">
<script type="module" src="/package/dist/places.js"></script>
`

const own = new URL("../node_modules/", import.meta.url).pathname
const alias = { ...codeMirror, react: `${own}react`, vue: `${own}vue` }

/** A site that has the page as places.html. */
export async function placesSite(world) {
  const script = await bundle("pages/places.js", { alias, define: developing })
  return world.site({ "/places.html": PAGE, "/package/dist/places.js": script })
}

/** As many pages, in browsers of their own, that have one document as `doc`. */
export async function pages(world, initial, count = 2) {
  const relay = await world.relay()
  const site = await placesSite(world)
  const all = []
  let url
  for (let n = 0; n < count; n++) {
    const page = await world.page(`${site.url}/places.html`)
    await page.waitForFunction(() => window.bind !== undefined)
    await open(page, { relay: relay.url })
    if (url) await find(page, url)
    else url = await create(page, initial)
    await synced(page)
    all.push(page)
  }
  return all
}

export const bind = (page, kind, path) => page.evaluate(([kind, path]) => bind(kind, path), [kind, path])

/** Puts the focus into the field, and the caret to an index or the selection to a range. */
export const place = (page, start, end = start) =>
  page.evaluate(([start, end]) => {
    window.field ??= document.querySelector("#typed")
    if (field.setSelectionRange) {
      field.focus()
      field.setSelectionRange(start, end)
    } else {
      view.focus()
      view.dispatch({ selection: { anchor: start, head: end } })
    }
  }, [start, end])

export const value = page => page.evaluate(() => field.value ?? view.state.doc.toString())
export const selection = page => page.evaluate(() => [field.selectionStart, field.selectionEnd])
export const change = (page, edit, arg) =>
  page.evaluate(([edit, arg]) => doc.change(draft => (0, eval)(`(${edit})`)(draft, arg)), [String(edit), arg])
export const insert = (page, path, index, text) =>
  page.evaluate(
    ([path, index, text]) => doc.change(draft => reconverge.splice(draft, path, index, 0, text)),
    [path, index, text]
  )

/** Waits until the field shows this. */
export const shows = (page, expected) => until(`the field to show ${JSON.stringify(expected)}`, async () => (await value(page)) === expected, { seen: () => value(page) })
