// WebKitGTK's MiniBrowser, steered by WebKitWebDriver: W3C WebDriver, JSON over HTTP. It needs a
// display; one without a screen is started with it. What pages store lives as long as the browser.

import { createServer } from "node:net"
import { executable } from "./executable.js"
import { Started } from "./started.js"
import { inPage, keysOf, outOfPage } from "./steered.js"

/** A port that is free now; the driver does not say which one it took. */
const freePort = () =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once("error", reject)
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })

export class WebKit {
  #display
  #driver
  #base
  #turn = Promise.resolve()
  /** The tab that commands are for. */
  #current
  /** The tab that it started with. It stays, as the session ends with the last one. */
  #first

  async start() {
    const xvfb = executable("Xvfb", { variable: "XVFB_BIN", names: ["Xvfb"], debian: "xvfb" })
    const driver = executable("WebKitWebDriver", {
      variable: "WEBKIT_DRIVER_BIN",
      names: ["WebKitWebDriver"],
      debian: "webkit2gtk-driver",
    })
    const screen = ["-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    this.#display = new Started("Xvfb", xvfb, ["-displayfd", "3", ...screen], { pipes: 1 })
    const display = await this.#display.says(/^(\d+)$/)
    const port = await freePort()
    const env = { DISPLAY: `:${display}`, GDK_BACKEND: "x11", NO_AT_BRIDGE: "1" }
    this.#driver = new Started("WebKitWebDriver", driver, [`--port=${port}`, "--host=127.0.0.1"], { env })
    this.#base = `http://127.0.0.1:${port}`
    await this.#driver.ready(() => this.#call("GET", "/status").catch(() => false))
    const { sessionId } = await this.#call("POST", "/session", { capabilities: {} })
    this.#base += `/session/${sessionId}`
    await this.#call("POST", "/timeouts", { script: 60_000, pageLoad: 60_000 })
    this.#first = await this.#call("GET", "/window")
    return this
  }

  async #call(method, path, body) {
    this.#driver.alive()
    const response = await fetch(this.#base + path, { method, body: body && JSON.stringify(body) })
    const { value } = await response.json()
    if (!response.ok) throw new Error(`${value.error}: ${value.message}`)
    return value
  }

  /** One command at a time: each is for the tab that was chosen last. */
  call(handle, method, path, body) {
    const turn = this.#turn.then(async () => {
      if (this.#current !== handle) await this.#call("POST", "/window", { handle })
      this.#current = handle
      return this.#call(method, path, body)
    })
    this.#turn = turn.catch(() => {})
    return turn
  }

  async tab() {
    const { handle } = await this.call(this.#first, "POST", "/window/new", { type: "tab" })
    return new Tab(this, handle)
  }

  async kill() {
    const [driver, display] = [this.#driver, this.#display]
    this.#driver = this.#display = undefined
    await driver?.kill()
    await display?.kill()
  }

  dispose() {
    return this.kill()
  }
}

class Tab {
  #webkit
  #handle

  constructor(webkit, handle) {
    this.#webkit = webkit
    this.#handle = handle
  }

  #call(method, path, body) {
    return this.#webkit.call(this.#handle, method, path, body)
  }

  async goto(url) {
    await this.#call("POST", "/url", { url })
  }

  async reload() {
    await this.#call("POST", "/refresh", {})
  }

  async back() {
    await this.#call("POST", "/back", {})
  }

  async press(text) {
    await this.#call("POST", "/actions", { actions: keysOf(text) })
  }

  async evaluate(fn, argument) {
    const script = `const done = arguments[arguments.length - 1];
      (async () => { ${inPage(fn, argument)} })().then(done)`
    return outOfPage(await this.#call("POST", "/execute/async", { script, args: [] }))
  }

  async close() {
    await this.#call("DELETE", "/window")
  }
}
