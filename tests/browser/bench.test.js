// The bench at a small scale, so that it runs when it is needed; and memory.

import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { freshDocument } from "../interop/lib/client.js"
import { Relay } from "../interop/lib/relay.js"
import { inBoard, measureBoard } from "./bench/board.js"
import { saved } from "./bench/documents.js"
import { CLIENTS, measure } from "./bench/measure.js"
import { boardTable, table } from "./bench/report.js"
import { Session, Typist, benchSite } from "./bench/session.js"
import { sizes } from "./bench/sizes.js"

const CYCLES = 1_000
const GROWTH_BYTES_MAX = 1_000_000
const PROCESS_GROWTH_BYTES_MAX = 16_000_000

test("the bench measures both clients", { timeout: 300_000 }, async () => {
  const found = await measure({ documents: ["small"], clients: CLIENTS, runs: 1, seconds: 1 })
  for (const client of CLIENTS) {
    assert.ok(found.small[client].both[0].equal, `${client}: all are equal in the end`)
  }
  assert.match(table(found, await sizes()), /small, ours \| small, theirs/)
})

test("the bench measures a board beside Automerge and Yjs", { timeout: 120_000 }, async t => {
  const told = boardTable(await measureBoard(20))
  t.diagnostic(told)
  assert.match(told, /ours \| ours, 1,000 components \| automerge \| yjs/)
})

test("a change of one card of 1,000 does little", { timeout: 120_000 }, async () => {
  const { one, posts } = await inBoard(() => count())
  // Each selector looks once, and that of the card again when it renders.
  assert.deepEqual(one, { selectors: 1_001, renders: 1, copied: 3 })
  assert.equal(posts, 1, "what is changed in one task goes to the Worker in one message")
})

test(`${CYCLES} times opened and released, a document leaves nothing`, { timeout: 300_000 }, async t => {
  const folder = await mkdtemp(join(tmpdir(), "reconverge-bench-relay-"))
  const relay = await new Relay(folder).start()
  const site = await benchSite()
  const typist = new Typist()
  const session = await new Session(site, "ours").start()
  try {
    const place = { relay: relay.url, url: freshDocument().url }
    await typist.call("put", { ...place, bytes: saved("small").toString("base64") })
    await session.open(place)
    await session.settled()
    await session.release()
    await session.cycles(place.url, CYCLES / 5)
    const before = await session.memory()
    await session.cycles(place.url, CYCLES)
    const after = await session.memory()
    const used = ({ heaps }) => heaps.page.usedSize + heaps.workers[0].usedSize
    t.diagnostic(`heaps ${used(before)} -> ${used(after)}, process ${before.resident} -> ${after.resident}`)
    assert.ok(used(after) - used(before) < GROWTH_BYTES_MAX, "the heaps")
    assert.ok(after.resident - before.resident < PROCESS_GROWTH_BYTES_MAX, "the process")
  } finally {
    typist.dispose()
    await session.dispose()
    await site.dispose()
    await relay.dispose()
    await rm(folder, { recursive: true, force: true })
  }
})
