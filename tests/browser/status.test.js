// How safe all documents of a browser or process are, and whether relays are connected.

import assert from "node:assert/strict"
import { Repo } from "../../wasm/dist/node.js"
import { until } from "../interop/lib/wait.js"
import { create, find, open } from "./lib/doc.js"
import { story } from "./lib/world.js"

const disposed = repo => Object.assign(repo, { dispose: () => repo.shutdown() })

const becomes = (repo, expected) =>
  until(`the status ${expected}`, () => repo.status.state === expected, { seen: () => repo.status })

const pageBecomes = (page, expected) =>
  until(`the status ${expected}`, async () => (await page.evaluate(() => repo.status.state)) === expected, {
    seen: () => page.evaluate(() => repo.status),
  })

story("in Node.js: it is that of the least safe document, opened or not, and is told", async world => {
  const relay = await world.relay()
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  const told = []
  repo.on("status", ({ state }) => told.push(state))
  const [one, other] = [await repo.create({ n: 0 }), await repo.create({ n: 0 })]
  await Promise.all([one.whenSynced(), other.whenSynced()])
  await becomes(repo, "saved")

  await relay.kill()
  await until("no connection", () => !repo.isConnected)
  assert.equal(repo.status.state, "saved", "nothing is unsaved")
  one.change(draft => (draft.n = 1))
  assert.equal(repo.status.state, "offline", "it shows an edit at once")
  other.change(draft => (draft.n = 1))
  await repo.flush()
  one.release()
  await becomes(repo, "offline")

  await relay.start()
  await other.whenSynced()
  await becomes(repo, "saved")
  assert.equal(told.at(-1), "saved")
  told.forEach((state, at) => assert.notEqual(state, told[at - 1], "no status is told twice"))

  const gone = await repo.create({})
  repo.goOffline()
  await until("no connection", () => !repo.isConnected)
  gone.change(draft => (draft.x = 1))
  await becomes(repo, "offline")
  await repo.delete(gone.url)
  await becomes(repo, "saved")
})

story("in tabs: each tells what the others edited, and what was not sent before a reload", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const [ann, bob] = [await world.plain(site), await world.plain(site)]
  const context = ann.context()
  assert.notEqual(context, bob.context())
  const tab = await context.newPage()
  await tab.goto(`${site.url}/plain.html`)
  await tab.waitForFunction(() => window.reconverge !== undefined)
  for (const page of [ann, tab, bob]) await open(page, { relay: relay.url })
  const url = await create(ann, { n: 0 })
  for (const page of [ann, tab, bob]) await pageBecomes(page, "saved")
  await find(bob, url)

  await relay.kill()
  await ann.evaluate(() => doc.change(draft => (draft.n = 1)))
  assert.equal(await ann.evaluate(() => repo.status.state), "offline")
  await pageBecomes(tab, "offline")
  assert.equal(await bob.evaluate(() => repo.status.state), "saved", "what others edited elsewhere is theirs")
  await ann.evaluate(() => repo.flush())
  for (const page of [tab, ann]) {
    await page.reload()
    await page.waitForFunction(() => window.reconverge !== undefined)
  }
  await open(ann, { relay: relay.url })
  await pageBecomes(ann, "offline")
  await relay.start()
  // Nobody has opened it in this tab.
  await pageBecomes(ann, "saved")
  await until("bob's copy", () => bob.evaluate(() => doc.doc().n === 1))
})

story("which documents are kept here: in Node.js, and in a browser after a reload", async world => {
  const relay = await world.relay()
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  assert.deepEqual(await repo.documents(), [])
  const [one, other] = [await repo.create({ n: 0 }), await repo.create({})]
  const copy = await one.clone()
  const all = docs => docs.map(({ url }) => url).sort()
  assert.deepEqual((await repo.documents()).sort(), all([one, other, copy]))
  await repo.delete(other.url)
  assert.deepEqual((await repo.documents()).sort(), all([one, copy]))
  await one.whenSynced()

  const page = await world.plain(await world.site())
  await open(page, { relay: relay.url })
  const made = await create(page, { n: 1 })
  await find(page, one.url)
  await page.evaluate(() => repo.flush())
  await page.reload()
  await page.waitForFunction(() => window.reconverge !== undefined)
  await open(page, {})
  assert.deepEqual((await page.evaluate(() => repo.documents())).sort(), [made, one.url].sort())
})
