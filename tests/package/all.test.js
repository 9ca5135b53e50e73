// The package in further runtimes; `npm run all` installs them first.

import assert from "node:assert/strict"
import { readdirSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as esbuild from "esbuild"
import { story } from "../browser/lib/world.js"
import { expected } from "./consumer/use.mjs"
import { check, project } from "./lib.js"

const require = createRequire(new URL("all/package.json", import.meta.url))
const { Miniflare } = await import(pathToFileURL(require.resolve("miniflare")))

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
