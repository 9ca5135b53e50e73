// Whether a document is shown as a relay has it, in tabs and in Node.js.

import assert from "node:assert/strict"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { test } from "node:test"
import { Repo } from "../../wasm/dist/node.js"
import { story } from "./lib/world.js"

const adopted = (world, repo) => world.adopt(Object.assign(repo, { dispose: () => repo.shutdown() }))

story("a document that is kept here is found as it was, and shown as the relay has it when it is current", async world => {
  const relay = await world.relay()
  const folder = mkdtempSync(join(tmpdir(), "reconverge-current-"))
  world.adopt({ dispose: async () => rmSync(folder, { recursive: true, force: true }) })
  const storage = { file: join(folder, "documents") }
  const bob = adopted(world, await Repo.open({ relay: relay.url }))
  const ofBob = await bob.create({ n: 0 })
  await ofBob.whenSynced()
  for (let n = 1; n < 8; n++) {
    const ann = await Repo.open({ relay: relay.url, storage })
    const ofAnn = await ann.find(ofBob.url)
    await ofAnn.whenCurrent()
    assert.equal(ofAnn.doc().n, n - 1)
    // All at once, and while this page edits.
    ofAnn.change(draft => (draft.own = n))
    await Promise.all(Array.from({ length: 20 }, () => ofAnn.whenCurrent()))
    await ofAnn.whenSynced()
    await ann.shutdown()
    ofBob.change(draft => (draft.n = n))
    await ofBob.whenSynced()
  }
  // A relay that is away is waited for, so long.
  await relay.kill()
  const ann = adopted(world, await Repo.open({ relay: relay.url, storage }))
  const ofAnn = await ann.find(ofBob.url)
  assert.equal(ofAnn.doc().n, 6)
  await assert.rejects(ofAnn.whenCurrent({ timeout: 200 }), { name: "RepoError", code: "unavailable" })
  const left = AbortSignal.abort()
  await assert.rejects(ofAnn.whenCurrent({ signal: left }), { name: "AbortError" })
  await assert.rejects(ofAnn.whenCurrent({ timeout: "long" }), RangeError)
  const current = ofAnn.whenCurrent({ timeout: 30_000 })
  await relay.start()
  await current
  assert.equal(ofAnn.doc().n, 7)
  ann.goOffline()
  await assert.rejects(ofAnn.whenCurrent(), { code: "unavailable" })
  await relay.kill()
  ann.goOnline()
  const gone = assert.rejects(ofAnn.whenCurrent(), { code: "deleted" })
  await ann.delete(ofAnn.url)
  await gone
})

test("without a relay nobody can be asked", async t => {
  const repo = await Repo.open()
  t.after(() => repo.shutdown())
  const doc = await repo.create({ n: 0 })
  await assert.rejects(doc.whenCurrent(), { code: "unavailable" })
})

story("a tab shows what another browser stored at the relay before it asked", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const tab = await world.plain(site)
  const bob = adopted(world, await Repo.open({ relay: relay.url }))
  const ofBob = await bob.create({ n: 0 })
  await ofBob.whenSynced()
  const shown = await tab.evaluate(
    async ([relay, url]) => {
      window.repo = await reconverge.Repo.open({ relay })
      window.doc = await repo.find(url)
      await doc.whenCurrent()
      return doc.doc().n
    },
    [relay.url, ofBob.url],
  )
  assert.equal(shown, 0)
  await tab.evaluate(() => repo.goOffline())
  ofBob.change(draft => (draft.n = 1))
  await ofBob.whenSynced()
  const now = await tab.evaluate(async () => {
    repo.goOnline()
    await doc.whenCurrent()
    return doc.doc().n
  })
  assert.equal(now, 1)
})
