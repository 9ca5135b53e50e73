// A tab whose turn comes to run the engine, and which cannot start it: the module is not to be had
// for a while. It tries again, lets another tab do it meanwhile, and says so.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { becomes, create, find, flush, open, show } from "./lib/doc.js"
import { story } from "./lib/world.js"

const MODULE = "**/*.wasm"

const set = (page, key) => page.evaluate(key => doc.change(d => (d[key] = true)), key)
const stored = page => page.evaluate(() => doc.whenSynced({ level: "local" }))
const problems = page => page.evaluate(() => problems)
const statusOf = page => page.evaluate(() => doc.status)
const states = page => page.evaluate(() => repo.connections.map(({ state }) => state))

/** From now on the page gets no module; gives what ends that, and counts what was asked. */
async function withhold(page) {
  const asked = { count: 0 }
  const refuse = route => {
    asked.count += 1
    return route.abort()
  }
  await page.route(MODULE, refuse)
  return { asked, end: () => page.unroute(MODULE, refuse) }
}

async function tabs(world, count, options) {
  const site = await world.site()
  const context = await world.context()
  const pages = []
  let url
  for (let i = 0; i < count; i++) {
    const page = await world.plain(site, context)
    await open(page, options)
    if (url) await find(page, url)
    else url = await create(page, {})
    pages.push(page)
  }
  await flush(pages[0])
  return { site, context, pages, url }
}

story("a tab that cannot fetch the module when its turn comes tells, tries again, and loses nothing", async world => {
  world.expect(/net::ERR_FAILED/)
  const relay = await world.relay()
  const { pages: [first, second] } = await tabs(world, 2, { relay: relay.url })
  await until("the connection", async () => (await states(second))[0] === "connected")
  const { asked, end } = await withhold(second)
  await first.close()
  await set(second, "edited")
  const synced = stored(second)
  await until("the problem to be told", async () => (await problems(second)).length > 0)
  await until("another try", () => asked.count > 2)
  await set(second, "later")
  assert.match((await problems(second))[0], /cannot be started in this tab, which tries again/)
  assert.equal((await problems(second)).length, 1)
  const told = await statusOf(second)
  assert.equal(told.state, "offline")
  assert.match(told.storageError, /cannot be started/)
  assert.deepEqual(await states(second), ["offline"])
  await end()
  await second.evaluate(() => dispatchEvent(new Event("online")))
  await synced
  await second.evaluate(() => doc.whenSynced())
  await until("the status saved", async () => (await statusOf(second)).state === "saved")
  assert.equal((await statusOf(second)).storageError, undefined)
  assert.deepEqual(await states(second), ["connected"])
  assert.deepEqual(await show(second), { edited: true, later: true })
})

story("while a tab cannot start the engine, a third one does, and both go on", async world => {
  world.expect(/net::ERR_FAILED/)
  const { site, context, pages, url } = await tabs(world, 3)
  const [first, second, third] = pages
  const { asked, end } = await withhold(second)
  await first.close()
  await set(second, "second")
  await set(third, "third")
  await Promise.all([stored(second), stored(third)])
  for (const page of [second, third]) await becomes(page, { second: true, third: true })
  assert.ok(asked.count > 0)
  assert.equal((await problems(second)).length, 1)
  assert.deepEqual(await problems(third), [])
  assert.equal((await statusOf(second)).storageError, undefined)
  // Its turn comes again.
  await end()
  await third.close()
  await set(second, "again")
  await stored(second)
  const fourth = await world.plain(site, context)
  await open(fourth)
  await find(fourth, url)
  await becomes(fourth, { again: true, second: true, third: true })
})

story("a tab whose module never comes does not wait for ever", async world => {
  const { site, context, pages: [first], url } = await tabs(world, 1)
  const second = await world.plain(site, context)
  // In the page, whose clock a test can set.
  await second.clock.install()
  await open(second, { worker: false })
  await find(second, url)
  let asked = 0
  const ignore = () => void asked++
  await second.route(MODULE, ignore)
  await first.close()
  await set(second, "edited")
  const synced = stored(second)
  await until("the module to be asked for", () => asked > 0)
  await second.clock.runFor(19_000)
  assert.deepEqual(await problems(second), [])
  await second.clock.runFor(2_000)
  await until("the problem to be told", async () => (await problems(second)).length > 0)
  assert.match((await problems(second))[0], /cannot load .*wasm within 20 s/)
  await second.unroute(MODULE, ignore)
  await second.clock.runFor(1_000)
  await synced
})

story("tabs whose site is away go on when it is back, whichever is first", async world => {
  world.expect(/ERR_CONNECTION_REFUSED/)
  const { site, pages: [first, second, third] } = await tabs(world, 3)
  await site.stop()
  await first.close()
  await set(second, "second")
  await set(third, "third")
  for (const page of [second, third]) {
    await until("the problem to be told", async () => (await problems(page)).length > 0)
  }
  await site.start()
  await Promise.all([stored(second), stored(third)])
  for (const page of [second, third]) await becomes(page, { second: true, third: true })
})

story("a tab that tries in vain can be shut down, and opened again", async world => {
  world.expect(/net::ERR_FAILED/)
  const { pages: [first, second] } = await tabs(world, 2)
  const { end } = await withhold(second)
  await first.close()
  const waiting = second.evaluate(() => doc.heads().catch(error => error.code))
  await until("the problem to be told", async () => (await problems(second)).length > 0)
  await second.evaluate(() => repo.shutdown())
  assert.equal(await waiting, "closed")
  const failed = await second.evaluate(() => reconverge.Repo.open().catch(error => error.code))
  assert.equal(failed, "storage")
  await end()
  await open(second)
  await create(second, { again: true })
  await flush(second)
})
