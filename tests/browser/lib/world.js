// One test case: a name that is a sentence, and a world of browsers, pages, sites and relays that
// is taken down again whatever happens.

import { mkdirSync } from "node:fs"
import { cp, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { fileURLToPath } from "node:url"
import { Relay } from "../../interop/lib/relay.js"
import { open } from "./browsers.js"
import { Profile, launch } from "./chromium.js"
import { packageFolder } from "./package.js"
import { Site } from "./site.js"

const STORY_MS = 60_000
const SCREENSHOTS = fileURLToPath(new URL("../screenshots/", import.meta.url))

/** A page that has the package as `reconverge`, without a bundler. */
const PLAIN = `<!doctype html>
<meta charset="utf-8">
<title>plain</title>
<link rel="icon" href="data:,">
<script>
  // For browsers that tell nobody.
  window.reported = []
  addEventListener("error", ({ message }) => reported.push(message))
  addEventListener("unhandledrejection", ({ reason }) => reported.push(String(reason)))
</script>
<script type="module">
  import * as reconverge from "/package/dist/browser.js"
  window.reconverge = reconverge
</script>
`

const BLANK = `<!doctype html><meta charset="utf-8"><title>blank</title><link rel="icon" href="data:,">`

// One browser per file of tests; every case has contexts of its own.
let browser
after(async () => (await browser)?.close())

class World {
  #things = []
  #relays = []
  #pages = []
  #errors = []
  #expected = []

  /** `tell(text)` puts a line into the test report. */
  constructor(tell) {
    this.tell = tell
  }

  /** Anything with a `dispose`. */
  adopt(thing) {
    this.#things.push(thing)
    return thing
  }

  async #folder(kind) {
    const folder = await mkdtemp(join(tmpdir(), `reconverge-${kind}-`))
    // A process that was just killed may still let go of its files.
    const options = { recursive: true, force: true, maxRetries: 5, retryDelay: 200 }
    this.adopt({ dispose: () => rm(folder, options) })
    return folder
  }

  /** A relay process; `kill` and `start` again keep its port and its data. */
  async relay(options) {
    const relay = this.adopt(new Relay(await this.#folder("relay"), options))
    this.#relays.push(relay)
    return relay.start()
  }

  /**
   * A web server with the package at `/package/`, a page that loaded it at `/plain.html`, an empty
   * page at `/blank.html`, and `places`; see {@link Site}.
   */
  site(places = {}) {
    const always = { "/plain.html": PLAIN, "/blank.html": BLANK, "/package/": `${packageFolder()}/` }
    return this.adopt(new Site({ ...always, ...places })).start()
  }

  /** A browser context: tabs of one context share what they store, others do not see it. */
  async context(options) {
    browser ??= launch()
    const context = await (await browser).newContext(options)
    context.on("page", page => this.#watch(page))
    return this.adopt({ context, dispose: () => context.close() }).context
  }

  /**
   * A browser with a profile on disk, started; `kill` and `start` again keep the profile. With
   * `from`, a profile that was killed, it begins as a copy of that.
   */
  async profile({ from } = {}) {
    const folder = await this.#folder("profile")
    const filter = path => !path.includes("/Singleton") // of the process that used it
    if (from) await cp(from.folder, folder, { recursive: true, filter })
    return this.adopt(new Profile(folder, page => this.#watch(page))).start()
  }

  /** A browser of this kind, started; see `browsers.js`. */
  async browser(kind) {
    const browser = open(kind, await this.#folder("profile"))
    this.adopt(browser)
    return browser.start()
  }

  /** A tab of `context`, or of a new one, at `url`. */
  async page(url, context) {
    const page = await (context ?? (await this.context())).newPage()
    await page.goto(url)
    return page
  }

  /** A tab in which `reconverge` is the package, loaded by a plain script. */
  async plain(site, context) {
    const page = await this.page(`${site.url}/plain.html`, context)
    await page.waitForFunction(() => window.reconverge !== undefined)
    return page
  }

  #watch(page) {
    if (this.#pages.includes(page)) return
    this.#pages.push(page)
    page.on("pageerror", error => this.#errors.push(`${page.url()}: ${error.stack ?? error}`))
    page.on("console", message => {
      const { url, lineNumber } = message.location()
      if (message.type() !== "error" && message.type() !== "warning") return
      this.#errors.push(`${url}:${lineNumber}: ${message.type()}: ${message.text()}`)
    })
    page.on("crash", () => this.#errors.push(`${page.url()}: the page crashed`))
  }

  /** Lets errors and warnings of pages that match `pattern` pass. */
  expect(pattern) {
    this.#expected.push(pattern)
  }

  /** What pages said that nobody expects. */
  get unexpected() {
    return this.#errors.filter(error => !this.#expected.some(pattern => pattern.test(error)))
  }

  /** Writes a picture of `page` to `screenshots/<name>.png` and returns its path. */
  async screenshot(page, name) {
    mkdirSync(SCREENSHOTS, { recursive: true })
    const path = join(SCREENSHOTS, `${name}.png`)
    await page.screenshot({ path, fullPage: true })
    return path
  }

  /** For the report of a failure. */
  async lastWords(name) {
    for (const error of this.unexpected) this.tell(`a page said: ${error}`)
    for (const relay of this.#relays) this.tell(`the relay's last words:\n${relay.log}`)
    const file = name.replace(/[^a-z0-9]+/gi, "-").slice(0, 80)
    for (const [i, page] of this.#pages.entries()) {
      if (page.isClosed() || page.url() === "about:blank") continue
      const path = await this.screenshot(page, `${file}-${i}`).catch(() => undefined)
      if (path) this.tell(`a page's picture: ${path}`)
    }
  }

  async dispose() {
    const failures = []
    for (const thing of this.#things.reverse()) {
      await thing.dispose().catch(error => failures.push(error))
    }
    if (failures.length > 0) throw failures[0]
  }
}

/** Runs `body(world)` as a test, which also fails if a page reports an error that is not expected. */
export function story(name, body, { ms = STORY_MS } = {}) {
  test(name, { timeout: ms }, async t => {
    const world = new World(text => t.diagnostic(text))
    try {
      await body(world)
      const [first] = world.unexpected
      if (first) throw new Error(`a page reported: ${first}`)
    } catch (error) {
      await world.lastWords(name)
      throw error
    } finally {
      await world.dispose()
    }
  })
}
