// Chromium, Firefox and WebKitGTK behind one small interface, for what must hold in each: a browser
// has `start()`, `tab()`, `kill()` and `dispose()`; a tab has `goto(url)`, `evaluate(fn, argument)`,
// `press(text)`, which types, `reload()`, `back()` and `close()`. Tabs of a browser share what they store.

import { until } from "../../interop/lib/wait.js"
import { Profile } from "./chromium.js"
import { Firefox } from "./firefox.js"
import { WebKit } from "./webkit.js"

/** Chromium with a profile on disk, whose pages have the interface already. */
class Chromium extends Profile {
  constructor(folder) {
    super(folder, () => {})
  }

  async tab() {
    const page = await this.context.newPage()
    // The driver's own waits in vain for the "load" of a page that was kept.
    const back = () => page.evaluate(() => void setTimeout(() => history.back()))
    return Object.assign(page, { back, press: text => page.keyboard.type(text) })
  }
}

const KINDS = { Chromium, Firefox, WebKitGTK: WebKit }

export const BROWSERS = Object.keys(KINDS)

/** A browser of this kind that is not started yet; what pages store is kept in `folder`. */
export const open = (kind, folder) => new KINDS[kind](folder)

/**
 * Calls `fn(argument)` in a tab and, in the same task of its page, goes to `url`; without one, the
 * tab reloads. Waits until the page that follows is there.
 */
export async function leave(tab, fn, argument, url) {
  const source = `(${fn})(${JSON.stringify(argument)})`
  await tab
    .evaluate(
      ([source, url]) => {
        window.left = true
        new Function(source)()
        if (url) location.href = url
        else location.reload()
      },
      [source, url]
    )
    .catch(error => {
      // The page may be gone before its answer; a mistake in `source` is not that.
      if (/^in the page|SyntaxError|TypeError|ReferenceError/.test(error.message)) throw error
    })
  const arrived = () => tab.evaluate(url => !window.left && document.readyState === "complete" && (!url || location.href === url), url)
  await until("the page that follows", () => arrived().catch(() => false))
}

/** Goes back to the page before, which `leave` left, and gives whether the browser kept it as it was. */
export async function goBack(tab) {
  const from = await tab.evaluate(() => location.href)
  await tab.back()
  const arrived = () => tab.evaluate(from => document.readyState === "complete" && location.href !== from, from)
  await until("the page before", () => arrived().catch(() => false))
  return tab.evaluate(() => window.left === true)
}
