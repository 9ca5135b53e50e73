// Chromium, Firefox and WebKitGTK behind one small interface, for what must hold in each: a browser
// has `start()`, `tab()`, `kill()` and `dispose()`; a tab has `goto(url)`, `evaluate(fn, argument)`,
// `reload()` and `close()`. Tabs of a browser share what they store.

import { until } from "../../interop/lib/wait.js"
import { Profile } from "./chromium.js"
import { Firefox } from "./firefox.js"
import { WebKit } from "./webkit.js"

/** Chromium with a profile on disk, whose pages have the interface already. */
class Chromium extends Profile {
  constructor(folder) {
    super(folder, () => {})
  }

  tab() {
    return this.context.newPage()
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
