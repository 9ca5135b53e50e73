// What an app downloads for either client: scripts as its build makes them, and the module.

import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { brotliCompressSync } from "node:zlib"
import { bundle } from "../lib/bundle.js"
import { packageFolder } from "../lib/package.js"

const size = bytes => ({ raw: bytes.length, brotli: brotliCompressSync(bytes).length })

export async function sizes() {
  const options = { minify: true, conditions: ["browser"] }
  const alias = { reconverge: join(packageFolder(), "dist/browser.js") }
  const automerge = fileURLToPath(import.meta.resolve("@automerge/automerge/automerge.wasm"))
  return {
    ours: {
      scripts: size(Buffer.from(await bundle("bench/pages/ours.js", { ...options, alias }))),
      module: size(readFileSync(join(packageFolder(), "dist/core/reconverge_bg.wasm"))),
    },
    theirs: {
      scripts: size(Buffer.from(await bundle("bench/pages/theirs.js", options))),
      module: size(readFileSync(automerge)),
    },
  }
}
