// One client in one browser profile, measured.

import { fork } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { until } from "../../interop/lib/wait.js"
import { bundle } from "../lib/bundle.js"
import { Profile } from "../lib/chromium.js"
import { packageFolder } from "../lib/package.js"
import { Site } from "../lib/site.js"
import { heaps, residentBytes, tasksOfPage } from "./devtools.js"

const AUTOMERGE_WASM = fileURLToPath(import.meta.resolve("@automerge/automerge/automerge.wasm"))

const CONVERGE_MS = 60_000

const html = client => `<!doctype html>
<meta charset="utf-8">
<title>${client}</title>
<link rel="icon" href="data:,">
<script src="/meter.js"></script>
<script type="module">
  import { start } from "/${client}.js"
  import { serve } from "/bench.js"
  serve(start)
</script>
`

/** The scripts of both clients, as an app's build would make them. */
async function scripts() {
  const options = { minify: true, conditions: ["browser"] }
  // As it is, since it finds its module beside itself.
  const ours = await bundle("bench/pages/ours.js", {
    ...options,
    plugins: [
      {
        name: "the packed package",
        setup: build => {
          const path = "/package/dist/browser.js"
          build.onResolve({ filter: /^reconverge$/ }, () => ({ path, external: true }))
        },
      },
    ],
  })
  return { ours, theirs: await bundle("bench/pages/theirs.js", options) }
}

export async function benchSite() {
  const { ours, theirs } = await scripts()
  return new Site({
    "/ours.html": html("ours"),
    "/theirs.html": html("theirs"),
    "/ours.js": ours,
    "/theirs.js": theirs,
    "/meter.js": await bundle("bench/pages/meter.js"),
    "/bench.js": await bundle("bench/pages/bench.js"),
    "/automerge.wasm": readFileSync(AUTOMERGE_WASM),
    "/package/": `${packageFolder()}/`,
  }).start()
}

/** A process that types; see `typist.js`. */
export class Typist {
  #process = fork(fileURLToPath(new URL("typist.js", import.meta.url)))
  #calls = 0

  async call(name, args) {
    const call = ++this.#calls
    this.#process.send({ call, name, args })
    for (;;) {
      const [answer] = await once(this.#process, "message")
      if (answer.call !== call) continue
      if (answer.error) throw new Error(answer.error)
      return answer.value
    }
  }

  dispose() {
    this.#process.disconnect()
  }
}

export class Session {
  #site
  #client
  #errors = []

  constructor(site, client) {
    this.#site = site
    this.#client = client
  }

  async start() {
    this.folder = await mkdtemp(join(tmpdir(), "reconverge-bench-"))
    this.profile = new Profile(this.folder, () => {})
    await this.profile.start()
    this.page = this.profile.context.pages()[0] ?? (await this.profile.context.newPage())
    this.page.on("pageerror", error => this.#errors.push(String(error)))
    return this
  }

  /** Loads the page anew, and opens a document: how long that took and blocked. */
  async open(place) {
    const { page } = this
    await page.goto("about:blank")
    const { value, tasks } = await tasksOfPage(page, async () => {
      await page.goto(`${this.#site.url}/${this.#client}.html`)
      await page.waitForFunction(() => window.bench !== undefined)
      const { ms } = await page.evaluate(place => bench.open(place), place)
      return { ms, ...(await page.evaluate(() => meter.end())) }
    })
    this.#check()
    return { ms: value.ms, late: value.late, long: Math.max(0, ...value.tasks), ...tasks }
  }

  /** Keystrokes on their own. */
  async type(count, everyMs) {
    return this.page.evaluate(args => bench.type(args), { count, everyMs })
  }

  async store(count) {
    return this.page.evaluate(count => bench.store(count), count)
  }

  /** Somebody else types, and the page if `own`: frames, delays, and whether all is equal after that. */
  async together(typist, { count, everyMs, own }) {
    const { page } = this
    await page.evaluate(() => bench.forgetSeen())
    const { value, tasks } = await tasksOfPage(page, async () => {
      await page.evaluate(() => meter.begin())
      const typing = own && page.evaluate(args => bench.type(args), own)
      const typed = await typist.call("type", { count, everyMs })
      const keystrokes = await typing
      const all = async () => (await page.evaluate(() => bench.seen())).length >= count
      // What comes late is late, and still has to come.
      const frames = await page.evaluate(() => meter.end())
      await until("all keystrokes to be seen", all, { ms: CONVERGE_MS })
      return { typed, keystrokes, frames }
    })
    const seen = await page.evaluate(() => bench.seen())
    const equal = await this.isEqual(typist)
    this.#check()
    const { sent, ms } = value.typed
    return {
      keystrokes: value.keystrokes,
      delays: sent.map((time, i) => seen[i] - time),
      typistMs: ms,
      gaps: value.frames.gaps,
      long: Math.max(0, ...value.frames.tasks),
      ...tasks,
      equal,
    }
  }

  /** Waits until page and typist show the same. */
  async isEqual(typist) {
    const is = async () =>
      (await this.page.evaluate(() => bench.digest())) === (await typist.call("digest"))
    try {
      await until("both to show the same", is, { ms: CONVERGE_MS })
      return true
    } catch {
      return false
    }
  }

  settled() {
    return this.page.evaluate(() => bench.settled())
  }

  async cycles(url, count) {
    await this.page.evaluate(args => bench.cycles(args), { url, count })
  }

  release() {
    return this.page.evaluate(() => bench.release())
  }

  /** Bytes, after garbage was collected: heaps of scripts, and memory of the whole process. */
  async memory() {
    return { heaps: await heaps(this.page), resident: await residentBytes(this.page) }
  }

  #check() {
    if (this.#errors.length > 0) throw new Error(`the page said: ${this.#errors[0]}`)
  }

  async dispose() {
    await this.profile.dispose()
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 })
  }
}
