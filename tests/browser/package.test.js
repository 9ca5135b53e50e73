// The packed package in a page without a bundler.

import assert from "node:assert/strict"
import { story } from "./lib/world.js"

story("a plain page loads the package's module", async world => {
  const site = await world.site()
  const page = await world.plain(site)
  const version = await page.evaluate(async () => {
    await reconverge.ready()
    return reconverge.protocolVersion()
  })
  assert.equal(version, "1")
  const modules = site.requests.filter(path => path.endsWith(".wasm"))
  assert.deepEqual(modules, ["/package/dist/core/reconverge_bg.wasm"])
})

story("a worker that is started from a string loads the module by its url", async world => {
  const page = await world.plain(await world.site())
  assert.equal(await page.evaluate(() => reconverge.ask()), "1")
})
