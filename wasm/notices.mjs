// The licences of the crates that are compiled into the module, which ask to be passed on with it.

import { readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"

const MIT = new URL("../LICENSE-MIT", import.meta.url)
const LICENSE_FILE = /^(licen[cs]e|copying|notice|unlicense)/i

const isMit = (license) => /\bMIT\b/.test(license) && !/\bAND\b/.test(license)

/** Where a crate may be had under the MIT licence, its text is enough. */
function licenseFiles(folder, license) {
    const files = readdirSync(folder, { withFileTypes: true })
        .filter((entry) => entry.isFile() && LICENSE_FILE.test(entry.name))
        .map(({ name }) => name)
    const mit = isMit(license) ? files.filter((name) => /mit/i.test(name)) : []
    return (mit.length > 0 ? mit : files).map((name) => join(folder, name))
}

/** What a crate asks to be passed on: its own texts, or that of its licence if it has none with it. */
function textsOf({ name, license, authors, manifest_path }) {
    const files = manifest_path ? licenseFiles(dirname(manifest_path), license ?? "") : []
    if (files.length > 0) return files.map((file) => readFileSync(file, "utf8"))
    if (!isMit(license)) throw new Error(`${name} comes without the text of its licence, ${license}`)
    const whose = authors.length > 0 ? authors.join(", ") : `the authors of ${name}`
    return [readFileSync(MIT, "utf8").replace(/^Copyright.*$/m, `Copyright (c) ${whose}`)]
}

/** Is a part of the compiler, and no package. */
const STANDARD_LIBRARY = {
    name: "std",
    license: "MIT OR Apache-2.0",
    repository: "https://github.com/rust-lang/rust",
    authors: ["The Rust Project Contributors"],
}

/**
 * Which crates there are, and each text once, with the crates that it is of.
 *
 * @param tree lines of `cargo tree --prefix none`
 * @param packages of `cargo metadata`
 */
export function notices(tree, packages) {
    const linked = new Set(tree.map((line) => line.split(" ", 2).join(" ")))
    const isLinked = ({ name, version, source }) => source !== null && linked.has(`${name} v${version}`)
    const texts = new Map()
    const list = [...packages.filter(isLinked), STANDARD_LIBRARY].map((crate) => {
        const { name, version, license, repository } = crate
        for (const text of textsOf(crate).map((text) => text.trim().replaceAll("\r\n", "\n"))) {
            texts.set(text, [...(texts.get(text) ?? []), name])
        }
        return `${[name, version].join(" ").trim()}: ${license ?? "see its text"}${repository ? ` (${repository})` : ""}`
    })
    const about = "The module core/reconverge_bg.wasm contains these crates, under these licences."
    const parts = [...texts].map(([text, names]) => `${names.join(", ")}:\n\n${text}`)
    return [[about, "", ...list.sort()].join("\n"), ...parts].join(`\n\n${"-".repeat(80)}\n\n`) + "\n"
}
