// Builds the page into dist/: one script, one style sheet and the core's module beside them, each
// also compressed. The package has to be built before (npm run build, in wasm/).

import { build } from "esbuild"
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { brotliCompressSync, gzipSync } from "node:zlib"

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

mkdirSync(here("dist"), { recursive: true })
for (const name of readdirSync(here("dist"))) {
    // It keeps the folder in the checkout, for the build of the relay to look into.
    if (name !== ".gitignore") rmSync(here(`dist/${name}`), { recursive: true })
}
mkdirSync(here("dist/core"))

await build({
    entryPoints: [here("src/main.ts"), here("style.css")],
    entryNames: "[name]",
    outdir: here("dist"),
    bundle: true,
    // The package lies in this repository, with the packages of its own build beside it, which it
    // would find first; and two copies of CodeMirror do not know each other.
    alias: Object.fromEntries(
        ["@codemirror/state", "@codemirror/view"].map((name) => [name, here(`node_modules/${name}`)]),
    ),
    minify: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    logLevel: "warning",
})
for (const file of ["index.html", "icon.svg"]) copyFileSync(here(file), here(`dist/${file}`))
// The package looks for it beside its own script, which is now part of main.js.
const core = new URL(import.meta.resolve("reconverge/reconverge_bg.wasm"))
copyFileSync(core, here("dist/core/reconverge_bg.wasm"))

for (const name of readdirSync(here("dist"), { recursive: true })) {
    const path = join(here("dist"), name)
    if (name === ".gitignore" || statSync(path).isDirectory()) continue
    const bytes = readFileSync(path)
    writeFileSync(`${path}.br`, brotliCompressSync(bytes))
    writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }))
}
