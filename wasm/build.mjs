// Builds the npm package into dist/: the WebAssembly module, its glue, the code of the worker, the
// entries and their types.
//
//   npm run build
//   RECONVERGE_WASM_PROFILE=dev npm run build   quick and large, with the names of functions
//   RECONVERGE_WASM_STD=prebuilt npm run build  without the sources of Rust's standard library
//
// Order matters: the glue comes first, as everything imports it; the code of the worker and the
// module in base64 become modules that the entries import.

import { build } from "esbuild"
import { spawnSync } from "node:child_process"
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { notices } from "./notices.mjs"

const here = dirname(fileURLToPath(import.meta.url))
const root = dirname(here)
const js = (name) => join(here, "js", name)
const dist = (name) => join(here, "dist", name)

const TARGET = "wasm32-unknown-unknown"

/** Must be there. */
const ENTRIES = ["browser", "node", "deno", "workerd", "base64"]

/** For frameworks and editors. What they share with the package's entries is shared in dist/ too. */
const BINDINGS = ["react", "svelte", "vue", "codemirror", "input", "order", "json"]

const requested = process.env.RECONVERGE_WASM_PROFILE || "release"
const profile = { release: "wasm", dev: "wasm-dev" }[requested]
if (profile === undefined) {
    fail(`RECONVERGE_WASM_PROFILE is "${requested}"; it may be "release", the default, or "dev"`)
}
const dev = profile === "wasm-dev"

const std = dev ? "prebuilt" : process.env.RECONVERGE_WASM_STD || "own"
if (!["own", "prebuilt"].includes(std)) {
    fail(`RECONVERGE_WASM_STD is "${std}"; it may be "own", the default, or "prebuilt"`)
}

function fail(message) {
    console.error(`wasm/build.mjs: ${message}`)
    process.exit(1)
}

function run(command, args, env = {}) {
    const options = { cwd: root, stdio: "inherit", env: { ...process.env, ...env } }
    const { status, signal, error } = spawnSync(command, args, options)
    if (error) fail(`${command}: ${error.message}`)
    if (status !== 0) fail(`'${[command, ...args].join(" ")}' ended with ${status ?? signal}`)
}

/** What cargo prints. */
function ask(args) {
    const options = { cwd: root, encoding: "utf8", maxBuffer: 100_000_000 }
    const { status, stdout, stderr } = spawnSync("cargo", args, options)
    if (status !== 0) fail(`cargo ${args[0]}: ${stderr}`)
    return stdout
}

/**
 * Panics name source files: those of dependencies by the folder in which cargo keeps them on this
 * machine, which is nobody's business and takes room.
 */
function withoutFolders(packages) {
    const folders = packages
        .filter(({ source }) => source !== null)
        .map(({ manifest_path }) => dirname(dirname(manifest_path)))
    const remaps = [...new Set(folders)]
        .filter((folder) => !/\s/.test(folder)) // the variable has no quotes
        .map((folder) => `--remap-path-prefix=${folder}=crates`)
    const name = `CARGO_TARGET_${TARGET.toUpperCase().replaceAll("-", "_")}_RUSTFLAGS`
    const flags = [process.env[name] ?? "", ...remaps, ...COMPACT_HASH, ...OWN_STD.flags]
    return { [name]: flags.join(" ").trim() }
}

/** Writes a module that exports one string, and its type. */
function writeString(name, exported, text, about) {
    writeFileSync(dist(`${name}.js`), `export const ${exported} = ${JSON.stringify(text)}\n`)
    const type = `/** ${about} */\nexport declare const ${exported}: string\n`
    writeFileSync(dist(`${name}.d.ts`), type)
}

/** Removes the types that no entry refers to, directly or not: internals are nobody's business. */
function pruneTypes() {
    const reached = new Set([...ENTRIES, ...BINDINGS].map((name) => dist(`${name}.d.ts`)))
    for (const file of reached) {
        const text = readFileSync(file, "utf8")
        for (const [, path] of text.matchAll(/(?:from |import\()"(\.[^"]+)\.js"/g)) {
            reached.add(join(dirname(file), `${path}.d.ts`))
        }
    }
    for (const name of readdirSync(dist(""), { recursive: true })) {
        // What sources import from dist/ has types there, which are not in the package.
        const imported = /^(core|wasm-base64|worker-source)\b/.test(name)
        if (name.endsWith(".d.ts") && !imported && !reached.has(dist(name))) rmSync(dist(name))
    }
}

/**
 * SHA-256 with loops in the place of 64 rounds one after the other: 1.3 kB less in brotli. Importing
 * 20,000 changes, each of which is hashed twice, takes as long (350 ms in Node.js).
 */
const COMPACT_HASH = ["--cfg", 'sha2_backend_soft="compact"']

/**
 * LLVM inlines a function of any size where it has one caller: it takes 15,000 off its cost. Only
 * those that cost less than 35 are worth it: code that is in one place of its own resembles other
 * code less. Of what was tried, the module is smallest in brotli like this, 404.6 kB, though not raw:
 * 404.8 with 30, 405.3 with 40, 405.5 with 25, 407.2 with 60, 409.2 with 150.
 */
const INLINING = ["-C", "llvm-args=-inline-threshold=-14965"]

/**
 * The standard library is compiled here too, for size, and panics end where they begin: nobody reads
 * their messages; nor what `{:?}` would print, which no message that users see has in it. That is
 * 33 kB less in brotli. A stable compiler takes these options if it is told
 * to be one that is being bootstrapped.
 */
const OWN_STD =
    std === "own"
        ? {
              arguments: ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"],
              flags: ["-Zunstable-options", "-Cpanic=immediate-abort", "-Zfmt-debug=none"],
              env: { RUSTC_BOOTSTRAP: "1" },
          }
        : { arguments: [], flags: [], env: {} }

const shared = {
    bundle: true,
    minify: true,
    target: "es2022",
    charset: "utf8",
    legalComments: "none",
    logLevel: "warning",
    // What the package says to bundlers about dist/ is not meant for its sources.
    ignoreAnnotations: true,
}

rmSync(dist(""), { recursive: true, force: true })
mkdirSync(dist("core"), { recursive: true })
// npm packs nothing from above its folder.
for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) copyFileSync(join(root, name), join(here, name))

run("sh", [join(here, "setup.sh"), std])
const { packages, target_directory } = JSON.parse(
    ask(["metadata", "--format-version=1", "--locked", "--filter-platform", TARGET]),
)
run(
    "cargo",
    [
        ...["rustc", "--locked", "--profile", profile, "--target", TARGET],
        ...["--package", "reconverge-wasm", "--lib", ...OWN_STD.arguments],
        // Of the last step, which optimizes all crates as one.
        ...(dev ? [] : ["--", ...INLINING]),
    ],
    { ...withoutFolders(packages), ...OWN_STD.env },
)
run("cargo", [
    ...["run", "--quiet", "--release", "--locked", "--package", "reconverge-xtask", "--"],
    ...(dev ? ["--names"] : []),
    join(target_directory, TARGET, profile, "reconverge_wasm.wasm"),
    dist("core"),
])

// Sizes are limited by it.
writeFileSync(dist("build.json"), `${JSON.stringify({ profile, std })}\n`)

const linked = ask([
    ...["tree", "--locked", "--target", TARGET, "--package", "reconverge-wasm"],
    ...["--edges", "normal,no-proc-macro", "--prefix", "none"],
])
writeFileSync(dist("THIRD-PARTY-LICENSES.txt"), notices(linked.split("\n"), packages))

const wasm = readFileSync(dist("core/reconverge_bg.wasm"))
writeString("wasm-base64", "base64", wasm.toString("base64"), "The module, in base64.")

// A classic script, as every browser starts one from a Blob.
const worker = await build({
    ...shared,
    entryPoints: [js("worker.ts")],
    format: "iife",
    write: false,
})
writeString(
    "worker-source",
    "source",
    worker.outputFiles[0].text,
    "The script of the worker; it is given the module by message.",
)

run(process.execPath, [join(here, "node_modules/typescript/bin/tsc"), "--project", here])
pruneTypes()

const { outputFiles } = await build({
    ...shared,
    entryPoints: [...ENTRIES, ...BINDINGS].map((name) => js(`${name}.ts`)),
    outdir: dist(""),
    write: false,
    format: "esm",
    // What entries share is in one file, so that two of them in one app share one core.
    splitting: true,
    // Node.js shows the line of an error that nobody caught, whole.
    lineLimit: 500,
    chunkNames: "shared-[hash]",
    external: ["reconverge", "*.wasm", "node:*", "ws", "react", "svelte", "svelte/*", "vue", "@codemirror/*"],
})
for (const { path, text } of outputFiles) {
    // What entries share does nothing by itself, and bundlers warn of imports that are for nothing.
    writeFileSync(path, text.replace(/import"\.\/shared-[^"]+";/g, ""))
}
