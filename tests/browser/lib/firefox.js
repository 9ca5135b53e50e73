// Firefox, steered by WebDriver BiDi: messages in JSON over a WebSocket that Firefox itself serves.

import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import WebSocket from "ws"
import { within } from "../../interop/lib/wait.js"
import { executable } from "./executable.js"
import { Started } from "./started.js"
import { inPage, keysOf, outOfPage } from "./steered.js"

const CALL_MS = 60_000

/** Firefox asks several hosts for news when it starts; here it asks nobody. */
const PREFERENCES = {
  "app.normandy.enabled": false,
  "app.update.disabledForTesting": true,
  "browser.safebrowsing.provider.mozilla.updateURL": "",
  "browser.startup.homepage_override.mstone": "ignore",
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.getAddons.cache.enabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "services.settings.server": "data:,none",
  "toolkit.telemetry.server": "",
}

/** A Firefox that keeps what pages store in `folder`. */
export class Firefox {
  #process
  #socket
  #calls = new Map()
  #last = 0

  constructor(folder) {
    this.folder = folder
  }

  async start() {
    const path = executable("Firefox", { variable: "FIREFOX_BIN", names: ["firefox-esr", "firefox"], debian: "firefox-esr" })
    const lines = Object.entries(PREFERENCES).map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`)
    await writeFile(join(this.folder, "user.js"), lines.join(""))
    const args = ["--headless", "--no-remote", "--profile", this.folder, "--remote-debugging-port=0", "about:blank"]
    this.#process = new Started("Firefox", path, args)
    const url = await this.#process.says(/^WebDriver BiDi listening on (\S+)$/)
    this.#socket = new WebSocket(`${url}/session`)
    await new Promise((resolve, reject) => {
      this.#socket.once("open", resolve)
      this.#socket.once("error", reject)
    })
    this.#socket.on("message", text => this.#heard(JSON.parse(text)))
    this.#socket.on("error", () => {}) // it is closed then
    this.#socket.on("close", () => {
      for (const { reject } of this.#calls.values()) reject(new Error("Firefox closed the connection"))
    })
    await this.call("session.new", { capabilities: {} })
    return this
  }

  #heard({ id, type, result, error, message }) {
    const call = this.#calls.get(id)
    this.#calls.delete(id)
    if (type === "success") call?.resolve(result)
    else call?.reject(new Error(`${error}: ${message}`))
  }

  call(method, params = {}) {
    const id = (this.#last += 1)
    const answer = new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }))
    this.#socket.send(JSON.stringify({ id, method, params }))
    return within(`Firefox's answer to ${method}`, answer, CALL_MS)
  }

  async tab() {
    const { context } = await this.call("browsingContext.create", { type: "tab" })
    return new Tab(this, context)
  }

  async kill() {
    const started = this.#process
    this.#process = undefined
    await started?.kill()
  }

  dispose() {
    return this.kill()
  }
}

class Tab {
  #firefox
  #context

  constructor(firefox, context) {
    this.#firefox = firefox
    this.#context = context
  }

  async goto(url) {
    await this.#firefox.call("browsingContext.navigate", { context: this.#context, url, wait: "complete" })
  }

  async reload() {
    await this.#firefox.call("browsingContext.reload", { context: this.#context, wait: "complete" })
  }

  async back() {
    await this.#firefox.call("browsingContext.traverseHistory", { context: this.#context, delta: -1 })
  }

  async press(text) {
    await this.#firefox.call("input.performActions", { context: this.#context, actions: keysOf(text) })
  }

  async evaluate(fn, argument) {
    const called = await this.#firefox.call("script.callFunction", {
      functionDeclaration: `async () => { ${inPage(fn, argument)} }`,
      target: { context: this.#context },
      awaitPromise: true,
    })
    if (called.type === "exception") throw new Error(called.exceptionDetails.text)
    return outOfPage(called.result.value)
  }

  async close() {
    await this.#firefox.call("browsingContext.close", { context: this.#context })
  }
}
