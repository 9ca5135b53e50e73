// No limit is met after an edit was shown: what shows is kept, and what is too much throws before
// anything has happened.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { becomesStatus, create, find, flush, open, show } from "./lib/doc.js"
import { story } from "./lib/world.js"

const PASTED = 4_300_000
const LARGE_MS = 400_000

const textLength = page => page.evaluate(() => doc.doc().text.length)

story(`a paste of ${PASTED} characters is kept, stored and synced`, async world => {
  const relay = await world.relay()
  const site = await world.site()
  const ann = await world.plain(site)
  await open(ann, { relay: relay.url })
  const url = await create(ann, { text: "", after: 0 })
  await ann.evaluate(length => {
    doc.change(d => reconverge.splice(d, ["text"], 0, 0, "paste ".repeat(length / 5).slice(0, length)))
    doc.change(d => (d.after = 1))
  }, PASTED)
  assert.equal(await textLength(ann), PASTED)
  await flush(ann)
  await until("everything on the relay", async () => (await ann.evaluate(() => doc.status.state)) === "saved", {
    ms: LARGE_MS,
  })
  await ann.reload()
  await ann.waitForFunction(() => window.reconverge !== undefined)
  await open(ann, { relay: relay.url })
  await find(ann, url)
  assert.equal(await textLength(ann), PASTED)
  const bob = await world.plain(site)
  await open(bob, { relay: relay.url })
  await find(bob, url)
  assert.equal(await textLength(bob), PASTED)
  assert.equal(await bob.evaluate(() => doc.doc().after), 1)
}, { ms: 600_000 })

story("what is too much for one change throws, and the document goes on", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const ann = await world.plain(site)
  await open(ann, { relay: relay.url })
  await create(ann, { text: "before" })
  const thrown = await ann.evaluate(() => {
    try {
      doc.change(d => {
        d.other = true
        reconverge.splice(d, ["text"], 0, 0, "x".repeat(15_000_000))
      })
    } catch (error) {
      return error.name
    }
  })
  assert.equal(thrown, "RangeError")
  assert.deepEqual(await show(ann), { text: "before" })
  await ann.evaluate(() => doc.change(d => (d.after = true)))
  await flush(ann)
  await becomesStatus(ann, "saved")
})
