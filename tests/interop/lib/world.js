// One test case: a name that is a sentence, and a world of relays, lines and clients that is
// taken down again whatever happens.

import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, test } from "node:test"
import { Client } from "./client.js"
import { RawPeer } from "./raw.js"
import { Relay } from "./relay.js"
import { Tap } from "./tap.js"

const STORY_MS = 60_000
const LINGER_MS = 2_000

// Stock clients leave timers behind (a document that was never found waits for a minute), so
// a file that is done ends its own process.
after(() => setTimeout(() => process.exit(), LINGER_MS).unref())

class World {
  #things = []
  #relays = []

  /** `tell(text)` puts a line into the test report. */
  constructor(tell) {
    this.tell = tell
  }

  #keep(thing) {
    this.#things.push(thing)
    return thing
  }

  async relay(options) {
    const data = await mkdtemp(join(tmpdir(), "reconverge-interop-"))
    this.#keep({ dispose: () => rm(data, { recursive: true, force: true }) })
    const relay = this.#keep(new Relay(data, options))
    this.#relays.push(relay)
    return relay.start()
  }

  /** A line to the relay that can be listened to and cut. */
  async tap(relay) {
    return this.#keep(await new Tap(() => relay.url).open())
  }

  /** A client that is connected to `line` (a relay or a tap). */
  async client(name, line, options) {
    const client = this.#keep(new Client(name, line.url, options))
    if (options?.online === false) return client
    return client.connected()
  }

  /** A client behind a tap of its own, as `client.tap`. */
  async tapped(name, relay, options) {
    const tap = await this.tap(relay)
    const client = await this.client(name, tap, options)
    client.tap = tap
    return client
  }

  /** A bare socket that has joined. */
  async raw(name, line) {
    return this.#keep(new RawPeer(name, line.url)).join()
  }

  /** A bare socket that has not said anything yet. */
  async socket(name, line) {
    return this.#keep(new RawPeer(name, line.url)).open()
  }

  /** Anything else with a `dispose`. */
  adopt(thing) {
    return this.#keep(thing)
  }

  get logs() {
    return this.#relays.map(relay => relay.log).join("\n---\n")
  }

  async dispose() {
    const failures = []
    for (const thing of this.#things.reverse()) {
      await thing.dispose().catch(error => failures.push(error))
    }
    if (failures.length > 0) throw failures[0]
  }
}

/** Runs `body(world)` as a test; if it fails, the relay's last log lines are reported too. */
export function story(name, body, { ms = STORY_MS } = {}) {
  test(name, { timeout: ms }, async t => {
    const world = new World(text => t.diagnostic(text))
    try {
      await body(world)
    } catch (error) {
      t.diagnostic(`the relay's last words:\n${world.logs}`)
      throw error
    } finally {
      await world.dispose()
    }
  })
}
