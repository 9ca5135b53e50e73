// The page with the board, in a browser of its own.

import { automerge, bundle } from "../lib/bundle.js"
import { launch } from "../lib/chromium.js"
import { packageFolder } from "../lib/package.js"
import { Site } from "../lib/site.js"

const PAGE = `<!doctype html>
<meta charset="utf-8">
<title>board</title>
<link rel="icon" href="data:,">
<script type="module" src="/package/dist/board.js"></script>
`

const own = name => new URL(`../node_modules/${name}`, import.meta.url).pathname

/** What `evaluate` finds out in that page. */
export async function inBoard(evaluate, argument) {
  const script = await bundle("bench/pages/board.js", {
    minify: true,
    plugins: [automerge],
    define: { "process.env.NODE_ENV": '"production"' },
    alias: { react: own("react") },
  })
  const places = { "/board.html": PAGE, "/package/dist/board.js": script, "/package/": `${packageFolder()}/` }
  const site = await new Site(places).start()
  const browser = await launch()
  try {
    const page = await browser.newPage()
    await page.goto(`${site.url}/board.html`)
    await page.waitForFunction(() => window.measure !== undefined)
    return await page.evaluate(evaluate, argument)
  } finally {
    await browser.close()
    await site.dispose()
  }
}

export const measureBoard = count => inBoard(count => measure(count), count)
