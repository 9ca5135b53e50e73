// Modules of this folder and of the package's sources, made into one script.

import { build } from "esbuild"
import { readFile } from "node:fs/promises"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import { compile } from "svelte/compiler"

/** For bundles with components of Svelte. */
export const svelte = {
  name: "svelte",
  setup({ onLoad }) {
    onLoad({ filter: /\.svelte$/ }, async ({ path: filename }) => {
      const { js } = compile(await readFile(filename, "utf8"), { filename, generate: "client", css: "injected" })
      return { contents: js.code, loader: "js" }
    })
  },
}

/**
 * For bundles of stock clients: Automerge with its module in base64, as one script must hold all;
 * for browsers it says that a bundler is to load the module.
 */
export const automerge = {
  name: "automerge",
  setup({ onResolve }) {
    const slim = createRequire(import.meta.url).resolve("@automerge/automerge/slim")
    const path = slim.replace(/dist.*$/, "dist/mjs/entrypoints/fullfat_base64.js")
    onResolve({ filter: /^@automerge\/automerge$/ }, () => ({ path }))
  },
}

/** For bundles with React or Vue, as they are developed with. */
export const developing = {
  "process.env.NODE_ENV": '"development"',
  __VUE_OPTIONS_API__: "true",
  __VUE_PROD_DEVTOOLS__: "false",
  __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
}

const copyOf = name => fileURLToPath(new URL(`../../../wasm/node_modules/${name}`, import.meta.url))

/**
 * For pages with the package's binding for CodeMirror: an editor and what extends it must be of one
 * copy, and the stock binding brings another.
 */
export const codeMirror = Object.fromEntries(
  ["@codemirror/state", "@codemirror/view"].map(name => [name, copyOf(name)])
)

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
