// The package in projects of its users' bundlers and frameworks, as these build and serve them.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { mkdtempSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as esbuild from "esbuild"
import * as vite8 from "vite"
import * as vite7 from "vite-7"
import webpack from "webpack"
import { until } from "../interop/lib/wait.js"
import { story } from "../browser/lib/world.js"
import { expected } from "./consumer/use.mjs"
import { ENV, check, checkBuilt, checkPage, folders, freePort, page, project, run } from "./lib.js"

const require = createRequire(import.meta.url)
const folder = await project()

const VITES = [["Vite 7", vite7], ["Vite 8", vite8]]

// Next.js, which gives urls without a host, and runs its pages on the server first.

for (const [name, args] of [["Turbopack", []], ["webpack", ["--webpack"]]]) {
  story(`Next.js with ${name}: a page keeps what is edited, and its server has documents, too`, async world => {
    const next = require.resolve("next/dist/bin/next")
    const folder = await project("next")
    await run(folder, process.execPath, next, "build", ...args)
    const port = await freePort()
    const server = spawn(process.execPath, [next, "start", "--port", `${port}`, "--hostname", "127.0.0.1"], {
      cwd: folder,
      env: ENV,
    })
    let said = ""
    for (const stream of [server.stdout, server.stderr]) stream.on("data", data => (said += data))
    world.adopt({ dispose: async () => server.kill("SIGKILL") })
    const url = `http://127.0.0.1:${port}/`
    const answer = () => fetch(`${url}served`).catch(() => undefined)
    const served = await until("the server", answer, { seen: () => said })
    assert.deepEqual(await served.json(), { value: expected }, said)

    world.expect(/favicon|status of 404/)
    const page = await world.page(url)
    const text = page.locator("#text")
    const shows = expected =>
      until(`the page to show ${expected}`, async () => (await text.inputValue()) === expected, {
        seen: () => page.evaluate(() => document.body.innerHTML),
      })
    await shows("made")
    await text.fill("edited")
    await page.reload()
    await shows("edited")
  }, { ms: 180_000 })
}

// Before the others: what builds for production says so in the environment.
for (const [name, vite] of VITES) {
  story(`${name}, developing, without configuration`, async world => {
    const [root, port] = [await project(), await freePort()]
    const server = await vite.createServer({
      ...{ root, configFile: false, logLevel: "error" },
      server: { host: "127.0.0.1", port, strictPort: true },
    })
    world.adopt({ dispose: () => server.close() })
    await server.listen()
    await checkPage(world, `http://127.0.0.1:${port}/`)
  })
}

// Where a page lies, and what its urls are relative to.

const HTML = (base, script) => `<!doctype html>
<meta charset="utf-8">
<title>consumer</title>
${base}
<link rel="icon" href="data:,">
${script}
`

for (const [name, vite] of VITES) {
  story(`${name}, built with a relative base, under a subpath`, async world => {
    const outDir = join(folder, name)
    await vite.build({ root: folder, configFile: false, logLevel: "error", base: "./", build: { outDir } })
    await checkBuilt(world, outDir, { base: "/some/where/" })
  })
}

/** Builds the consumer's page by webpack. */
async function pack(path, { output, ...options } = {}) {
  const stats = await new Promise((resolve, reject) => {
    const config = { mode: "production", context: folder, entry: "./page.js", performance: { hints: false }, ...options }
    webpack({ ...config, output: { path, filename: "page.js", ...output } }, (error, stats) =>
      error ? reject(error) : resolve(stats)
    )
  })
  assert.equal(stats.hasErrors() || stats.hasWarnings(), false, stats.toString())
  page(path)
}

story("webpack, with its urls relative to a <base>", async world => {
  const built = join(folder, "webpack-base")
  await pack(built, { output: { publicPath: "" } })
  const html = HTML('<base href="/some/where/">', '<script type="module" src="page.js"></script>')
  await checkBuilt(world, built, { places: { "/app.html": html }, base: "/some/where/", path: "/app.html" })
})

story("webpack, which leaves urls without a host", async world => {
  const built = join(folder, "webpack-relative")
  const module = { parser: { javascript: { url: "relative" } } }
  await pack(built, { output: { publicPath: "/some/where/" }, module })
  await checkBuilt(world, built, { base: "/some/where/" })
})

story("webpack, developing", async world => {
  const built = join(folder, "webpack-development")
  await pack(built, { mode: "development" })
  await checkBuilt(world, built)
})

story("a plain script, with a <base> and an import map", async world => {
  const map = JSON.stringify({ imports: { reconverge: "./node_modules/reconverge/dist/browser.js" } })
  const base = `<base href="/some/where/"><script type="importmap">${map}</script>`
  const html = HTML(base, '<script type="module" src="page.js"></script>')
  await checkBuilt(world, folder, { places: { "/app.html": html }, base: "/some/where/", path: "/app.html" })
})

// esbuild, which copies no files.

for (const format of ["esm", "iife"]) {
  story(`esbuild to ${format}, without settings`, async world => {
    const built = join(folder, `esbuild-${format}`)
    page(built)
    const { warnings } = await esbuild.build({
      ...{ entryPoints: [join(folder, "page.js")], outfile: join(built, "page.js"), bundle: true, format },
    })
    assert.deepEqual(warnings, [])
    await checkBuilt(world, built)
  })
}

story("esbuild for Node.js, as one script far from the package", async () => {
  const elsewhere = mkdtempSync(join(tmpdir(), "reconverge-far-"))
  folders.push(elsewhere)
  for (const [format, name] of [["esm", "main.mjs"], ["cjs", "main.cjs"]]) {
    const banner = { js: format === "esm" ? 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url)' : "" }
    await esbuild.build({
      ...{ entryPoints: [join(folder, name)], outfile: join(elsewhere, name), bundle: true, format, banner },
      ...{ platform: "node", logOverride: { "empty-import-meta": "silent" } },
    })
    await check(elsewhere, process.execPath, name)
  }
})

// Tests of apps, in a page that is not there.

story("vitest with jsdom", async () => {
  const folder = await project("tests")
  const vitest = join(require.resolve("vitest/package.json"), "../vitest.mjs")
  await run(folder, process.execPath, vitest, "run", "--environment", "jsdom", "--globals")
})

story("jest with jsdom", async () => {
  const folder = await project("tests")
  const jest = join(require.resolve("jest/package.json"), "../bin/jest.js")
  const args = ["--env", "jsdom", "--setupFiles", "./jest.setup.cjs", "--testMatch", "**/*.test.mjs"]
  await run(folder, process.execPath, "--experimental-vm-modules", jest, ...args)
})
