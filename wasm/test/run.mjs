// Bundles the tests and runs them: `node test/run.mjs [name ...]`.

import { spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { build } from "esbuild"

const tests = fileURLToPath(new URL(".", import.meta.url))
// Here, as packages are found from where the bundle lies.
const out = fileURLToPath(new URL("../node_modules/.cache/reconverge-tests/", import.meta.url))
const names = process.argv.slice(2)
const entryPoints = readdirSync(tests, { recursive: true })
    .filter((file) => file.endsWith(".test.ts") && (names.length === 0 || names.some((name) => file.includes(name))))
    .map((file) => tests + file)
if (entryPoints.length === 0) throw new Error(`there is no test named ${names.join(" or ")}`)

rmSync(out, { recursive: true, force: true })
mkdirSync(out, { recursive: true })
await build({
    entryPoints,
    outdir: out,
    outbase: tests,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    target: "node20",
    sourcemap: "inline",
    logLevel: "warning",
})
const bundles = readdirSync(out, { recursive: true }).filter((file) => file.endsWith(".mjs"))
const { status } = spawnSync(
    process.execPath,
    ["--enable-source-maps", "--test", ...bundles.map((file) => out + file)],
    {
        stdio: "inherit",
    },
)
process.exit(status ?? 1)
