// The package in what most of its users have: a page without tools, Vite, webpack, Node.js, types.

import assert from "node:assert/strict"
import { readFileSync, readdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { build } from "vite"
import webpack from "webpack"
import { story } from "../browser/lib/world.js"
import { check, checkBuilt, page, project, run } from "./lib.js"

const TSC = fileURLToPath(new URL("node_modules/typescript/bin/tsc", import.meta.url))

const folder = await project()
const modulesIn = path => readdirSync(path, { recursive: true }).filter(f => f.endsWith(".wasm"))

story("a plain script, with an import map", async world => {
  const map = { imports: { reconverge: "/package/dist/browser.js" } }
  const html = `<!doctype html>
    <link rel="icon" href="data:,">
    <script type="importmap">${JSON.stringify(map)}</script>
    <script type="module" src="/page.js"></script>`
  await checkBuilt(world, folder, { places: { "/index.html": html } })
})

story("Vite 8, built", async world => {
  await build({ root: folder, configFile: false, logLevel: "error", build: { outDir: "vite-8" } })
  assert.equal(modulesIn(join(folder, "vite-8")).length, 1)
  await checkBuilt(world, join(folder, "vite-8"))
})

story("webpack 5, built", async world => {
  const path = join(folder, "webpack-5")
  const stats = await new Promise((resolve, reject) => {
    webpack(
      {
        mode: "production",
        context: folder,
        entry: "./page.js",
        output: { path, filename: "page.js" },
        performance: { hints: false },
      },
      (error, stats) => (error ? reject(error) : resolve(stats))
    )
  })
  assert.equal(stats.hasErrors() || stats.hasWarnings(), false, stats.toString())
  assert.equal(modulesIn(path).length, 1)
  page(path)
  await checkBuilt(world, path)
})

story("Node.js, import", () => check(folder, process.execPath, "main.mjs"))

story("Node.js, require", () => check(folder, process.execPath, "main.cjs"))

story("Node.js, the module in base64", () => check(folder, process.execPath, "base64.mjs"))

story("passes on the licences of what the module contains, and of nothing else", () => {
  const file = join(folder, "node_modules/reconverge/dist/THIRD-PARTY-LICENSES.txt")
  const [list, ...texts] = readFileSync(file, "utf8").split(/\n-{80}\n/)
  const crates = list.match(/^[a-z0-9_-]+(?=( \d.*)?: )/gmi)
  const licensed = new Set(texts.flatMap(text => text.trim().split(":", 1)[0].split(", ")))
  assert.ok(crates.includes("automerge") && crates.includes("std") && !crates.includes("tokio"), list)
  assert.deepEqual(crates.filter(name => !licensed.has(name)), [])
})

for (const [module, moduleResolution] of [["ESNext", "Bundler"], ["NodeNext", "NodeNext"]]) {
  story(`types, resolved as ${moduleResolution} does`, async () => {
    const compilerOptions = {
      ...{ module, moduleResolution, strict: true, noEmit: true, types: [], target: "ES2022" },
      lib: ["ES2023", "DOM", "DOM.Iterable", "ESNext.Disposable"],
    }
    const name = `tsconfig.${moduleResolution}.json`
    writeFileSync(join(folder, name), JSON.stringify({ compilerOptions, files: ["types.ts"] }))
    await run(folder, process.execPath, TSC, "--project", name)
  })
}
