// The packed package in a page without a bundler.

import assert from "node:assert/strict"
import { readdirSync } from "node:fs"
import { packageFolder } from "./lib/package.js"
import { story } from "./lib/world.js"

story("a plain page loads the package's module, once", async world => {
  const site = await world.site()
  const page = await world.plain(site)
  const shown = await page.evaluate(async () => {
    const repo = await reconverge.Repo.open({ storage: "memory" })
    const doc = await repo.create({ said: "hello" })
    await repo.shutdown()
    return doc.doc().said
  })
  assert.equal(shown, "hello")
  const modules = site.requests.filter(path => path.endsWith(".wasm"))
  assert.deepEqual(modules, ["/package/dist/core/reconverge_bg.wasm"])
})

for (const worker of [true, false]) {
  story(`a module that is served as any bytes starts, ${worker ? "in the worker" : "here"}`, async world => {
    const site = await world.site()
    site.types[".wasm"] = "application/octet-stream"
    const page = await world.plain(site)
    const shown = await page.evaluate(async worker => {
      const repo = await reconverge.Repo.open({ worker })
      const doc = await repo.create({ said: "hello" })
      await repo.shutdown()
      return doc.doc().said
    }, worker)
    assert.equal(shown, "hello")
  })
}

story("the engine runs in the caller's thread where it must", async world => {
  const page = await world.plain(await world.site())
  const shown = await page.evaluate(async () => {
    const repo = await reconverge.Repo.open({ worker: false })
    const doc = await repo.create({ said: "hello" })
    await repo.shutdown()
    return doc.doc().said
  })
  assert.equal(shown, "hello")
})

story("a repo can be used in a Worker", async world => {
  const site = await world.site({
    "/worker.js": `
      import { Repo } from "/package/dist/browser.js"
      const repo = await Repo.open()
      const doc = await repo.create({ said: "hello from a worker" })
      await repo.flush()
      postMessage(doc.doc().said)
    `,
  })
  const page = await world.page(`${site.url}/blank.html`)
  const said = await page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const worker = new Worker("/worker.js", { type: "module" })
        worker.onmessage = ({ data }) => resolve(data)
        worker.onerror = event => reject(new Error(event.message))
      })
  )
  assert.equal(said, "hello from a worker")
})

story("the package has its README and its licences", async () => {
  const files = readdirSync(packageFolder()).sort()
  assert.deepEqual(files, ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "dist", "package.json"])
})
