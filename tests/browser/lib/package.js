// The npm package as users get it: packed, and unpacked again.

import { execFileSync } from "node:child_process"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const SOURCE = fileURLToPath(new URL("../../../wasm", import.meta.url))

let unpacked

/** The folder of the unpacked package; made once per process. */
export function packageFolder() {
  return (unpacked ??= unpack())
}

function unpack() {
  if (!existsSync(join(SOURCE, "dist/browser.js"))) {
    throw new Error("the package is not built; run 'npm install --no-save && npm run build' in wasm/")
  }
  const folder = mkdtempSync(join(tmpdir(), "reconverge-package-"))
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
  const packed = execFileSync(
    "npm",
    ["pack", "--json", "--ignore-scripts", "--loglevel=error", "--pack-destination", folder],
    { cwd: SOURCE, encoding: "utf8" }
  )
  const described = JSON.parse(packed)
  // A list, or since npm 11 an object by name.
  const [{ filename }] = Object.values(described)
  execFileSync("tar", ["-xzf", join(folder, filename), "-C", folder])
  return join(folder, "package")
}
