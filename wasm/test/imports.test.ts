import assert from "node:assert/strict"
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path/posix"
import { test } from "node:test"
import { cycleIn, importsOf } from "./imports.js"

/** From where the bundle of this lies. */
const SOURCES = new URL("../../../js/", import.meta.url)

test("imports in the package point one way", () => {
    const files = readdirSync(SOURCES, { recursive: true })
        .map((file) => String(file).replaceAll("\\", "/"))
        .filter((file) => file.endsWith(".ts") && !file.endsWith(".d.ts"))
    const imports = files.map((file): [string, string[]] => {
        const source = readFileSync(new URL(file, SOURCES), "utf8")
        const inside = importsOf(source).map((path) => join(dirname(file), path).replace(/\.js$/, ".ts"))
        // What is built lies elsewhere.
        return [file, inside.filter((path) => !path.startsWith("../"))]
    })
    for (const [file, imported] of imports) {
        for (const path of imported) assert.ok(files.includes(path), `${file} imports ${path}`)
    }
    assert.ok(imports.some(([file, imported]) => file === "repo.ts" && imported.includes("draft.ts")))
    assert.equal(cycleIn(new Map(imports))?.join(" -> "), undefined)
})

test("modules that import each other are found, however many they are", () => {
    const one = new Map([["a", ["a"]]])
    const two = new Map([
        ["a", ["b"]],
        ["b", ["c", "d"]],
        ["c", []],
        ["d", ["b"]],
    ])
    const none = new Map([
        ["a", ["b", "c"]],
        ["b", ["c"]],
        ["c", []],
    ])
    assert.deepEqual(cycleIn(one), ["a"])
    assert.deepEqual(cycleIn(two), ["b", "d"])
    assert.equal(cycleIn(none), undefined)
})

test("all forms of imports are read", () => {
    const source = `// import "./comment.js"
import "./effect.js"
import { one } from "./one.js"
import type { Two } from "./two.js"
import {
    three,
    type Three,
} from "./three.js"
import { other } from "package"
export { four } from "./four.js"
export * from "./five.js"
export type * from "./six.js"
export const text = "./text.js"
const later = await import("./later.js")
`
    const read = importsOf(source)
    assert.deepEqual(
        read,
        ["effect", "one", "two", "three", "four", "five", "six", "later"].map((name) => `./${name}.js`),
    )
})
