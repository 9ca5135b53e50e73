// The package in Chromium, Firefox and WebKitGTK.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { BROWSERS } from "./lib/browsers.js"
import { becomes, create, find, flush, open, synced, type } from "./lib/doc.js"
import { story } from "./lib/world.js"

/** Goes to the page that has the package as `reconverge`. */
async function plain(tab, site) {
  await tab.goto(`${site.url}/plain.html`)
  await until("the package", () => tab.evaluate(() => window.reconverge !== undefined))
  return tab
}

for (const kind of BROWSERS) {
  story(`${kind}: what is edited stays, shows in a second tab, and syncs with another browser`, async world => {
    const relay = await world.relay()
    const site = await world.site()
    const browser = await world.browser(kind)
    const first = await plain(await browser.tab(), site)
    await open(first, { relay: relay.url })
    const url = await create(first, { text: "one" })
    await type(first, 3, ", two")
    await synced(first)

    const elsewhere = await world.plain(site)
    await open(elsewhere, { relay: relay.url })
    await find(elsewhere, url)
    await becomes(elsewhere, { text: "one, two" })

    const second = await plain(await browser.tab(), site)
    await open(second, { relay: relay.url })
    await find(second, url)
    await becomes(second, { text: "one, two" })
    await type(second, 8, ", three")
    await becomes(first, { text: "one, two, three" })
    await becomes(elsewhere, { text: "one, two, three" })
    await type(elsewhere, 0, "zero, ")
    for (const tab of [first, second]) await becomes(tab, { text: "zero, one, two, three" })

    for (const tab of [first, second]) assert.deepEqual(await tab.evaluate(() => reported), [])

    // Without the relay there is only what the browser keeps.
    for (const tab of [first, second]) await flush(tab)
    await relay.terminate()
    await second.close()
    await plain(first, site)
    await open(first)
    await find(first, url)
    await becomes(first, { text: "zero, one, two, three" })
    assert.deepEqual(await first.evaluate(() => reported), [])
  }, { ms: 120_000 })
}
