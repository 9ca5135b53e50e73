// Type tests: compiles the files here against the types that the package ships, where and how
// `npm pack` puts them. A line that must not compile is under a @ts-expect-error.
//
//   npm run build && npm run test:types

import { execFileSync, spawnSync } from "node:child_process"
import { cpSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const here = fileURLToPath(new URL(".", import.meta.url))
const root = fileURLToPath(new URL("../..", import.meta.url))
// Here, as React's and other types are found from where the tests lie.
const out = join(root, "node_modules/.cache/reconverge-types")
const installed = join(out, "node_modules/reconverge")

const OPTIONS = {
    target: "ES2022",
    lib: ["ES2022", "DOM", "DOM.Iterable"],
    types: [],
    strict: true,
    noUncheckedIndexedAccess: true,
    exactOptionalPropertyTypes: true,
    verbatimModuleSyntax: true,
    // The package's types must hold by themselves.
    skipLibCheck: false,
    noEmit: true,
}
const RESOLUTIONS = [
    { files: "*.ts", module: "NodeNext", moduleResolution: "NodeNext" },
    { files: "*.ts", module: "ESNext", moduleResolution: "Bundler" },
    { files: "*.tsx", module: "ESNext", moduleResolution: "Bundler", jsx: "react-jsx" },
]

const failures = []

const packing = ["pack", "--dry-run", "--json", "--ignore-scripts", "--loglevel=error"]
const listed = execFileSync("npm", packing, { cwd: root, encoding: "utf8" })
// A list, or since npm 11 an object by name.
const [{ files }] = Object.values(JSON.parse(listed))
rmSync(out, { recursive: true, force: true })
for (const { path } of files) {
    mkdirSync(dirname(join(installed, path)), { recursive: true })
    cpSync(join(root, path), join(installed, path))
    if (!path.endsWith(".d.ts")) continue
    const text = readFileSync(join(root, path), "utf8")
    if (text.includes("@internal")) failures.push(`${path} has internals`)
    const code = text.replace(/\/\*[^]*?\*\/|\/\/.*/g, (comment) => comment.replace(/[^\n]/g, ""))
    for (const [at, line] of code.split("\n").entries()) {
        if (/\bany\b/.test(line)) failures.push(`${path}:${at + 1} has "any": ${line.trim()}`)
    }
}

for (const name of readdirSync(here)) if (name.endsWith(".ts")) cpSync(join(here, name), join(out, name))
writeFileSync(join(out, "package.json"), '{ "type": "module" }\n')

// The app in TypeScript of the docs, but for its first file, which needs the types of react-dom.
const docs = readFileSync(join(root, "../docs/frameworks.md"), "utf8")
for (const [, name, text] of docs.matchAll(/^```tsx typed (\S+)\n([^]*?)^```$/gm)) {
    if (name !== "main.tsx") writeFileSync(join(out, name), text)
}
for (const { files, ...compilerOptions } of RESOLUTIONS) {
    const { moduleResolution } = compilerOptions
    const config = join(out, `tsconfig.${moduleResolution}.${files.slice(2)}.json`)
    writeFileSync(config, JSON.stringify({ compilerOptions: { ...OPTIONS, ...compilerOptions }, include: [files] }))
    const tsc = join(root, "node_modules/typescript/bin/tsc")
    const { status } = spawnSync(process.execPath, [tsc, "--project", config], { stdio: "inherit" })
    if (status !== 0) failures.push(`the tests do not compile with the resolution ${moduleResolution} of ${files}`)
}

for (const failure of failures) console.error(`wasm/test/types: ${failure}`)
process.exit(failures.length > 0 ? 1 : 0)
