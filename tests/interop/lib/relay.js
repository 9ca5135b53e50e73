// The relay as a process of its own: started, watched, spoken to and stopped from outside.

import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { until, within } from "./wait.js"

const built = name =>
  fileURLToPath(new URL(`../../../target/release/${name}`, import.meta.url))

const RECONVERGE = process.env.RECONVERGE_BIN ?? built("reconverge")
const FAULTY_RELAY = process.env.FAULTY_RELAY_BIN ?? built("faulty-relay")

const START_MS = 20_000
const STOP_MS = 15_000
const DISPOSE_MS = 3_000
const LOG_LINES_KEPT = 40

export class Relay {
  #process
  #lines = []
  #log = []
  #exit

  /**
   * @param data directory that the relay keeps its store in; it outlives restarts.
   * @param options.arguments more of them for `serve`; may be changed between starts.
   * @param options.environment more of it.
   */
  constructor(data, { faulty = false, arguments: more = [], environment = {} } = {}) {
    this.data = data
    this.arguments = more
    this.environment = environment
    this.faulty = faulty
    this.binary = faulty ? FAULTY_RELAY : RECONVERGE
  }

  /** Starts the process and waits for its ready line. A restart keeps the port. */
  async start() {
    const listen = this.address ?? "127.0.0.1:0"
    const child = spawn(
      this.binary,
      ["serve", "--listen", listen, "--data", this.data, ...this.arguments],
      { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...this.environment } }
    )
    this.#process = child
    this.#lines = []
    this.#exit = new Promise(resolve => {
      child.once("error", error => resolve({ error }))
      child.once("exit", (code, signal) => resolve({ code, signal }))
    })
    this.exited = undefined
    this.#exit.then(outcome => {
      if (this.#process === child) this.exited = outcome
    })
    child.stdin.on("error", () => {}) // the process may end while a command is on its way
    createInterface({ input: child.stdout }).on("line", line =>
      this.#lines.push(line)
    )
    createInterface({ input: child.stderr }).on("line", line => {
      this.#log.push(line)
      if (this.#log.length > LOG_LINES_KEPT) this.#log.shift()
    })
    const ready = () =>
      this.#lines.map(line => /listening on (\S+:\d+)/.exec(line)).find(Boolean)
    await until(
      `ready line of ${this.binary}`,
      () => {
        if (this.exited) {
          throw new Error(
            `the relay ended before it was ready: ${JSON.stringify(this.exited)}\n${this.log}`
          )
        }
        return ready()
      },
      { ms: START_MS }
    )
    this.address = ready()[1]
    return this
  }

  get url() {
    return `ws://${this.address}`
  }

  get http() {
    return `http://${this.address}`
  }

  get pid() {
    return this.#process.pid
  }

  get running() {
    return this.#process !== undefined && this.exited === undefined
  }

  /** The last lines that the relay wrote to stderr. */
  get log() {
    return this.#log.join("\n")
  }

  /** Asks the process to end and returns `{code, signal}`. */
  async terminate(ms = STOP_MS) {
    this.#process.kill("SIGTERM")
    return within("exit after SIGTERM", this.#exit, ms)
  }

  /** Ends the process as a power cut would: it gets no chance to write anything. */
  async kill() {
    this.#process.kill("SIGKILL")
    await within("exit after SIGKILL", this.#exit, STOP_MS)
  }

  /** Gives a command to the faulty relay and waits until it took effect. */
  async command(name) {
    const answered = () =>
      this.#lines.filter(line => line === `ok ${name}`).length
    const before = answered()
    this.#process.stdin.write(`${name}\n`)
    await until(`the relay's answer to ${name}`, () => answered() > before)
  }

  /** Ends the process whatever state it is in. */
  async dispose() {
    if (!this.running) return
    try {
      await this.terminate(DISPOSE_MS)
    } catch {
      await this.kill()
    }
  }
}
