// Modules of this folder and of the package's sources, made into one script.

import { build } from "esbuild"
import { fileURLToPath } from "node:url"

/** The text of an ES module that holds `path`, relative to tests/browser, and its imports. */
export async function bundle(path, options = {}) {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL(`../${path}`, import.meta.url))],
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
    logLevel: "warning",
    ...options,
  })
  return outputFiles[0].text
}

/** What the module at `path` exports, loaded into this process. */
export async function load(path) {
  const text = await bundle(path, { platform: "node" })
  return import(`data:text/javascript;base64,${Buffer.from(text).toString("base64")}`)
}
