// The package in further tools and runtimes; `npm run all` installs them first.

import assert from "node:assert/strict"
import { once } from "node:events"
import { copyFileSync, mkdirSync, readFileSync, readdirSync } from "node:fs"
import { createRequire } from "node:module"
import { createServer } from "node:net"
import { dirname, join } from "node:path"
import { pathToFileURL } from "node:url"
import * as vite8 from "vite"
import { story } from "../browser/lib/world.js"
import { expected } from "./consumer/use.mjs"
import { check, checkBuilt, checkPage, page, project } from "./lib.js"

const require = createRequire(new URL("all/package.json", import.meta.url))
const load = name => import(pathToFileURL(require.resolve(name)))

const [vite7, esbuild, { Miniflare }] = await Promise.all(["vite", "esbuild", "miniflare"].map(load))

/** Vite tells its pages the port that it was given, so this cannot be 0. */
async function freePort() {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address()
  server.close()
  await once(server, "close")
  return port
}

/** Starts Vite's development server on a project of its own, and checks the page. */
async function develop(world, vite, config = {}) {
  const [root, port] = [await project(), await freePort()]
  const server = await vite.createServer({
    ...{ root, configFile: false, logLevel: "error", ...config },
    server: { host: "127.0.0.1", port, strictPort: true },
  })
  world.adopt({ dispose: () => server.close() })
  await server.listen()
  await checkPage(world, `http://127.0.0.1:${port}/`)
}

story("Vite 8, developing", world => develop(world, vite8))

story("Vite 7, developing, with the package excluded from optimization", world =>
  develop(world, vite7, { optimizeDeps: { exclude: ["reconverge"] } })
)

story("Vite 7, built", async world => {
  const root = await project()
  await vite7.build({ root, configFile: false, logLevel: "error", build: { outDir: "built" } })
  await checkBuilt(world, join(root, "built"))
})

story("esbuild, with the module copied beside the bundle", async world => {
  const folder = await project()
  const built = join(folder, "built")
  page(built)
  await esbuild.build({
    entryPoints: [join(folder, "page.js")],
    outfile: join(built, "page.js"),
    bundle: true,
    format: "esm",
  })
  const module = createRequire(join(folder, "page.js")).resolve("reconverge/reconverge_bg.wasm")
  // Where the entry looks for it, relative to the bundle.
  const [, path] = /new URL\("\.\/([^"]*\.wasm)"/.exec(readFileSync(join(built, "page.js"), "utf8"))
  mkdirSync(dirname(join(built, path)), { recursive: true })
  copyFileSync(module, join(built, path))
  await checkBuilt(world, built)
})

story("Deno", async () => {
  const folder = await project()
  const deno = require.resolve("deno/bin.cjs")
  const args = ["run", "--no-prompt", "--node-modules-dir=manual"]
  await check(folder, process.execPath, deno, ...args, "--allow-read", "main.mjs")
  await check(folder, process.execPath, deno, ...args, "base64.mjs")
})

story("workerd", async world => {
  const folder = await project()
  const built = join(folder, "built")
  await esbuild.build({
    entryPoints: [join(folder, "worker.mjs")],
    outdir: built,
    bundle: true,
    format: "esm",
    conditions: ["workerd"],
    loader: { ".wasm": "copy" },
  })
  const modules = readdirSync(built).map(name => ({
    type: name.endsWith(".wasm") ? "CompiledWasm" : "ESModule",
    path: join(built, name),
  }))
  modules.sort((a, b) => (a.type === "ESModule" ? -1 : 1))
  const miniflare = new Miniflare({ modules, modulesRoot: built, compatibilityDate: "2026-07-01" })
  world.adopt({ dispose: () => miniflare.dispose() })
  const response = await miniflare.dispatchFetch("http://localhost/")
  assert.deepEqual(await response.json(), expected)
})
