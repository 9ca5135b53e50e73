// Builds the page into dist/: one script, one style sheet and the core's module beside them. The
// package has to be built before (npm run build, in wasm/).

import { build } from "esbuild"
import { copyFileSync, mkdirSync, rmSync } from "node:fs"
import { fileURLToPath } from "node:url"

const here = (path) => fileURLToPath(new URL(path, import.meta.url))

rmSync(here("dist"), { recursive: true, force: true })
mkdirSync(here("dist/core"), { recursive: true })

await build({
    entryPoints: [here("src/main.ts"), here("style.css")],
    entryNames: "[name]",
    outdir: here("dist"),
    bundle: true,
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
