// A browser, a driver or a display as a process of its own, with what it wrote.

import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { until, within } from "../../interop/lib/wait.js"

const START_MS = 60_000
const STOP_MS = 15_000
const LOG_LINES_KEPT = 40

/** What is running; it ends with this process, also when that is told to end in the midst of a test. */
const running = new Set()

/** Lets a child that leads a group of its own end with this process. */
export function endsWithUs(child) {
  running.add(child)
  child.once("exit", () => running.delete(child))
}

function endAll() {
  for (const child of running) {
    try {
      process.kill(-child.pid, "SIGKILL")
    } catch {
      // It has ended by itself.
    }
  }
}

process.once("exit", endAll)
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => process.exit(1))

export class Started {
  #what
  #child
  #exit
  #outcome
  #log = []

  /** Streams of `pipes` (3 and above) are read as well as standard output and error. */
  constructor(what, path, args, { env, pipes = 0 } = {}) {
    this.#what = what
    const stdio = ["ignore", "pipe", "pipe", ...Array(pipes).fill("pipe")]
    // In a group of its own, so that what it starts ends with it.
    this.#child = spawn(path, args, { stdio, detached: true, env: { ...process.env, ...env } })
    endsWithUs(this.#child)
    this.#exit = new Promise(resolve => {
      this.#child.once("error", error => resolve((this.#outcome = { error })))
      this.#child.once("exit", (code, signal) => resolve((this.#outcome = { code, signal })))
    })
    for (const stream of this.#child.stdio.slice(1)) {
      createInterface({ input: stream }).on("line", line => {
        this.#log.push(line)
        if (this.#log.length > LOG_LINES_KEPT) this.#log.shift()
      })
    }
  }

  /** Waits until a line that it wrote matches, and gives the first group. */
  async says(pattern) {
    const said = () => this.#log.map(line => pattern.exec(line)?.[1]).find(Boolean)
    await until(`${this.#what} to say ${pattern}`, () => this.alive() && said(), { ms: START_MS, seen: () => this.#log })
    return said()
  }

  /** Waits until `answers()` is true of it. */
  ready(answers) {
    return until(`${this.#what} to be ready`, () => this.alive() && answers(), { ms: START_MS, seen: () => this.#log })
  }

  /** True; throws what it wrote if it has ended. */
  alive() {
    if (!this.#outcome) return true
    throw new Error(`${this.#what} ended: ${JSON.stringify(this.#outcome)}\n${this.#log.join("\n")}`)
  }

  /** Ends it and all its processes as a power cut would. */
  async kill() {
    if (this.#outcome?.error) return
    try {
      process.kill(-this.#child.pid, "SIGKILL")
    } catch (error) {
      if (error.code !== "ESRCH") throw error // all of them have ended
    }
    await within(`${this.#what}'s exit after SIGKILL`, this.#exit, STOP_MS)
  }
}
