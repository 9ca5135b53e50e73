// Which documents there are, and what comes and goes, in Node.js and in tabs.

import assert from "node:assert/strict"
import { Repo } from "../../wasm/dist/node.js"
import { until } from "../interop/lib/wait.js"
import { open } from "./lib/doc.js"
import { story } from "./lib/world.js"

const adopted = (world, repo) => world.adopt(Object.assign(repo, { dispose: () => repo.shutdown() }))

story("what is made, found and deleted is told, and is what is listed", async world => {
  const relay = await world.relay()
  const [ann, bob] = [await Repo.open({ relay: relay.url }), await Repo.open({ relay: relay.url })]
  for (const repo of [ann, bob]) adopted(world, repo)
  const events = []
  bob.on("documents", event => events.push(event))
  const made = await ann.create({ n: 0 })
  await made.whenSynced()
  const alone = adopted(world, await Repo.open())
  const nowhere = await alone.create({ n: 0 })
  await assert.rejects(bob.find(nowhere.url), { code: "unavailable" })
  const found = await bob.find(made.url)
  const own = await bob.create({ n: 1 })
  await until("both are told", () => events.length >= 2)
  assert.deepEqual(events, [{ added: found.url }, { added: own.url }])
  await bob.flush()
  assert.deepEqual((await bob.documents()).sort(), [found.url, own.url].sort())
  // What is opened again is no news.
  found.release()
  await bob.find(made.url)
  await bob.delete(made.url)
  await until("the deletion is told", () => events.length >= 3)
  assert.deepEqual(events.slice(2), [{ deleted: made.url }])
  assert.deepEqual(await bob.documents(), [own.url])
})

story("each tab hears of what another one makes, and lists again when another takes over", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const context = await world.context()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  for (const tab of [first, second]) {
    await open(tab, { relay: relay.url })
    await tab.evaluate(() => {
      window.events = []
      repo.on("documents", event => events.push(event))
    })
  }
  const url = await first.evaluate(async () => (await repo.create({ n: 0 })).url)
  await until("the other tab is told", () =>
    second.evaluate(url => events.some(({ added }) => added === url), url),
  )
  await first.close()
  await until("another tab took over", () =>
    second.evaluate(() => events.some(({ added, deleted }) => added === undefined && deleted === undefined)),
  )
  assert.deepEqual(await second.evaluate(() => repo.documents()), [url])
})
