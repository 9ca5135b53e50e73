// Chromium: where it is, how it is started, and a profile that outlives it.

import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { chromium } from "playwright-core"
import { until, within } from "../../interop/lib/wait.js"
import { executable } from "./executable.js"
import { endsWithUs } from "./started.js"

const FLAGS = [
  "--no-sandbox", // refuses to start as root otherwise
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // Shared memory is small in containers.
  "--disable-dev-shm-usage",
]

const START_MS = 30_000
const STOP_MS = 15_000
const LOG_LINES_KEPT = 40

const chromiumPath = () =>
  executable("Chromium", {
    variable: "CHROMIUM_BIN",
    names: ["chromium", "chromium-browser", "google-chrome"],
    debian: "chromium",
  })

/** A browser whose contexts forget everything when they are closed. */
export const launch = () =>
  chromium.launch({ executablePath: chromiumPath(), headless: true, args: FLAGS })

/** A browser that keeps what pages store in `folder`, also when it is killed. */
export class Profile {
  #process
  #exit
  #browser
  #log = []
  #watch

  /** `watch(page)` is called with every page. */
  constructor(folder, watch) {
    this.folder = folder
    this.#watch = watch
  }

  /** Starts the browser; `context` is then there. */
  async start() {
    const child = spawn(
      chromiumPath(),
      [
        ...FLAGS,
        "--headless",
        "--remote-debugging-port=0",
        `--user-data-dir=${this.folder}`,
        "about:blank",
      ],
      { stdio: ["ignore", "ignore", "pipe"], detached: true }
    )
    this.#process = child
    endsWithUs(child)
    let outcome
    this.#exit = new Promise(resolve => {
      child.once("error", error => resolve((outcome = { error })))
      child.once("exit", (code, signal) => resolve((outcome = { code, signal })))
    })
    let url
    createInterface({ input: child.stderr }).on("line", line => {
      url ??= /^DevTools listening on (\S+)$/.exec(line)?.[1]
      this.#log.push(line)
      if (this.#log.length > LOG_LINES_KEPT) this.#log.shift()
    })
    await until(
      "Chromium's debugging port",
      () => {
        if (outcome) {
          const log = this.#log.join("\n")
          throw new Error(`Chromium ended before it was ready: ${JSON.stringify(outcome)}\n${log}`)
        }
        return url
      },
      { ms: START_MS }
    )
    this.#browser = await chromium.connectOverCDP(url)
    this.context = this.#browser.contexts()[0]
    this.context.on("page", this.#watch)
    return this
  }

  /** Ends the browser and all its processes as a power cut would. */
  async kill() {
    if (!this.#process) return
    const { pid } = this.#process
    this.#process = undefined
    process.kill(-pid, "SIGKILL")
    await within("Chromium's exit after SIGKILL", this.#exit, STOP_MS)
    await this.#browser?.close().catch(() => {}) // the connection went with it
  }

  dispose() {
    return this.kill()
  }
}
