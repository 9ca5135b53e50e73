// All measurements, in order: opening, keystrokes, somebody else's, both, memory.

import { mkdtemp, rm } from "node:fs/promises"
import { loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { freshDocument } from "../../interop/lib/client.js"
import { Relay } from "../../interop/lib/relay.js"
import { saved } from "./documents.js"
import { Session, Typist, benchSite } from "./session.js"

export const CLIENTS = ["ours", "theirs"]

const TYPED_EVERY_MS = 50
const REMOTE_EVERY_MS = 20
const OWN_EVERY_MS = 100

/** Figures by document and client; each is a list, of one number per run. */
export async function measure({ documents, clients, runs, seconds, tell = () => {} }) {
  const folder = await mkdtemp(join(tmpdir(), "reconverge-bench-relay-"))
  const relay = await new Relay(folder).start()
  const site = await benchSite()
  try {
    const found = {}
    for (const name of documents) {
      found[name] = {}
      for (const client of clients) {
        tell(`${name}, ${client}`)
        found[name][client] = await measureOne({ name, client, relay: relay.url, site, runs, seconds, tell })
      }
    }
    return found
  } finally {
    await site.dispose()
    await relay.dispose()
    await rm(folder, { recursive: true, force: true })
  }
}

async function measureOne({ name, client, relay, site, runs, seconds, tell }) {
  // Each client has a document of its own, since typing makes it longer.
  const place = { relay, url: freshDocument().url }
  const typist = new Typist()
  const figures = {}
  const note = (figure, value) => {
    figures[figure] ??= []
    figures[figure].push(value)
  }
  const step = (what, value) => tell(`  ${what}: ${JSON.stringify(value)} (load ${loadavg()[0].toFixed(1)})`)
  try {
    await typist.call("put", { ...place, bytes: saved(name).toString("base64") })
    let session
    for (let i = 0; i < runs; i++) {
      await session?.dispose()
      session = await new Session(site, client).start()
      const opened = await session.open(place)
      step("from the relay", opened)
      note("fromRelay", opened)
    }
    try {
      await session.settled()
      // What comes from a relay is written some time later.
      await new Promise(resolve => setTimeout(resolve, 1000))
      for (let i = 0; i < runs; i++) {
        const opened = await session.open(place)
        step("from storage", opened)
        note("fromStorage", opened)
      }
      note("memory", await session.memory())
      step("memory", figures.memory.at(-1))
      await session.open(place)
      await typist.call("find", place)
      for (let i = 0; i < runs; i++) {
        const typed = await session.type(seconds * 20, TYPED_EVERY_MS)
        note("typed", summary(typed))
        const { stored, saved } = await session.store(seconds * 2)
        note("stored", summary(stored))
        note("saved", summary(saved))
        step("typed", [figures.typed, figures.stored, figures.saved].map(list => list.at(-1)))
      }
      const others = { count: seconds * 50, everyMs: REMOTE_EVERY_MS }
      const own = { count: seconds * 10, everyMs: OWN_EVERY_MS }
      for (const [figure, options] of [["remote", others], ["both", { ...others, own }]]) {
        for (let i = 0; i < runs; i++) {
          await session.settled()
          const { delays, gaps, keystrokes, ...rest } = await session.together(typist, options)
          const value = { delay: summary(delays), gap: summary(gaps), missed: missed(gaps), ...rest }
          if (keystrokes) value.typed = summary(keystrokes)
          note(figure, value)
          step(figure, value)
        }
      }
    } finally {
      await session.dispose()
    }
    await typist.call("leave")
  } finally {
    typist.dispose()
  }
  return figures
}

const FRAME_MS = 1000 / 60

/** Frames that did not come. */
const missed = gaps => gaps.reduce((sum, gap) => sum + Math.max(0, Math.round(gap / FRAME_MS) - 1), 0)

function summary(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const at = share => Math.round((sorted[Math.floor((sorted.length - 1) * share)] ?? NaN) * 100) / 100
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}
