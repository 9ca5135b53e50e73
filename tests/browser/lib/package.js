// The npm package as users get it: packed, and unpacked again.

import { execFileSync } from "node:child_process"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const SOURCE = fileURLToPath(new URL("../../../wasm", import.meta.url))

let packed

/** The packed package as `{ tarball, folder }`; made once per process. */
export const pack = () => (packed ??= make())

/** The folder of the unpacked package. */
export const packageFolder = () => pack().folder

function make() {
  if (!existsSync(join(SOURCE, "dist/browser.js"))) {
    throw new Error("the package is not built; run 'npm install --no-save && npm run build' in wasm/")
  }
  const folder = mkdtempSync(join(tmpdir(), "reconverge-package-"))
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
  const output = execFileSync(
    "npm",
    ["pack", "--json", "--ignore-scripts", "--loglevel=error", "--pack-destination", folder],
    { cwd: SOURCE, encoding: "utf8" }
  )
    // A list, or since npm 11 an object by name.
  const [{ filename }] = Object.values(JSON.parse(output))
  const tarball = join(folder, filename)
  execFileSync("tar", ["-xzf", tarball, "-C", folder])
  return { tarball, folder: join(folder, "package") }
}
