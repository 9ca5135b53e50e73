// Says how large the built package is for the apps that load it, and fails above the limits.
//
//   npm run build && npm run size
//
// Sizes are those of files as a server sends them: raw, and in brotli at its highest level.

import { build } from "esbuild"
import { existsSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { brotliCompressSync, constants } from "node:zlib"

const here = dirname(fileURLToPath(import.meta.url))
const ENTRY = join(here, "dist/browser.js")
const MODULE = "dist/core/reconverge_bg.wasm"

/**
 * By the standard library that is in the module, as the package is published with its own: of the
 * module, raw and in brotli, and of all that an app downloads.
 */
const LIMITS = {
    own: { raw: 1_560_000, brotli: 400_000, download: 440_000 },
    prebuilt: { raw: 1_656_000, brotli: 429_000, download: 469_000 },
}

if (!existsSync(ENTRY)) {
    console.error("wasm/size.mjs: there is no dist/browser.js; run 'npm run build' first")
    process.exit(1)
}

const { std } = JSON.parse(readFileSync(join(here, "dist/build.json"), "utf8"))
const max = LIMITS[std]

function brotliBytes(bytes) {
    const params = {
        [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
        [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    }
    return brotliCompressSync(bytes, { params }).length
}

function sizes(name, bytes) {
    return { name, raw: bytes.length, brotli: brotliBytes(bytes) }
}

function measure(name) {
    return sizes(name, readFileSync(join(here, name)))
}

/**
 * What an app that imports all of the main entry loads, bundled and minified; the worker's script is
 * a part. What is imported later, the glue for pages that may not have a Worker, is not.
 */
async function scripts() {
    const { metafile, outputFiles } = await build({
        absWorkingDir: here,
        entryPoints: [ENTRY],
        outdir: "app",
        bundle: true,
        minify: true,
        splitting: true,
        format: "esm",
        write: false,
        metafile: true,
        logLevel: "error",
    })
    const found = new Set()
    const visit = (file) => {
        if (found.has(file)) return
        found.add(file)
        for (const { path, kind } of metafile.outputs[file].imports) {
            if (kind === "import-statement") visit(path)
        }
    }
    visit("app/browser.js")
    const bytes = (name) => outputFiles.find(({ path }) => path.endsWith(name)).contents
    return [...found].sort().map((name) => sizes(name, bytes(name)))
}

const module = measure(MODULE)
const files = await scripts()
const total = {
    name: "all scripts of the main entry",
    raw: files.reduce((sum, { raw }) => sum + raw, 0),
    brotli: files.reduce((sum, { brotli }) => sum + brotli, 0),
}

const row = (name, raw, brotli) =>
    console.log(`${name.padEnd(34)}${String(raw).padStart(12)}${String(brotli).padStart(12)}`)
const number = (value) => value.toLocaleString("en-US")
row("bytes", "raw", "brotli")
for (const { name, raw, brotli } of [module, ...files, total]) row(name, number(raw), number(brotli))
row(`at most: module, std ${std}`, number(max.raw), number(max.brotli))
row("at most: with all scripts", "", number(max.download))

const exceeded = [
    ["the module, raw", module.raw, max.raw],
    ["the module in brotli", module.brotli, max.brotli],
    ["the module and all scripts in brotli", module.brotli + total.brotli, max.download],
].filter(([, bytes, max]) => bytes > max)
for (const [what, bytes, max] of exceeded) {
    console.error(`wasm/size.mjs: ${what}: ${number(bytes)} bytes, at most ${number(max)}`)
}
process.exit(exceeded.length > 0 ? 1 : 0)
