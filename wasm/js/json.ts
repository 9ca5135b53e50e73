/**
 * Documents as JSON, and back: for exports that people can read, for fixtures of tests, for clipboards.
 * What JSON has no word for is an object with one key that begins with `$`. History, marks and blocks
 * of texts are not in it: `Repo.export` has everything.
 *
 * | stored | in JSON |
 * |---|---|
 * | text, `null`, booleans, numbers | themselves |
 * | `ImmutableString` | `{ "$fixed": "open" }` |
 * | `Counter` | `{ "$counter": 3 }` |
 * | `Date` | `{ "$date": "2026-11-30T00:00:00.000Z" }` |
 * | `Uint8Array` | `{ "$bytes": "AQI=" }`, in base64 |
 * | bigint | `{ "$int": "9007199254740993" }` |
 * | `NaN`, infinities | `{ "$number": "NaN" }` |
 * | a map with a key that begins with `$` | `{ "$map": { … } }` |
 *
 * @module reconverge/json
 */

import { Counter, ImmutableString, isCounter, isImmutableString } from "./counter.js"
import { isBytes, isDate, isPlain, isStorable } from "./kinds.js"
import { fixedIn } from "./tree.js"

/** What JSON can say. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/**
 * What a document shows, or a part of it, as JSON can say it. In a change, give it what the document
 * shows, not the draft, whose fixed strings look like texts.
 *
 * @throws TypeError for what no document holds, and for a date that is beyond those of JavaScript, which
 * other programs may have stored; with its path.
 */
export function toJSON(shown: unknown): Json {
    return said(shown, "")
}

function said(shown: unknown, path: string): Json {
    switch (typeof shown) {
        case "string":
        case "boolean":
            return shown
        case "number":
            return Number.isFinite(shown) ? shown : { $number: String(shown) }
        case "bigint":
            return { $int: String(shown) }
    }
    if (shown === null) return null
    const at = path && ` at ${path}`
    if (typeof shown === "object") {
        if (isDate(shown)) {
            if (Number.isNaN(shown.getTime())) throw new TypeError(`JSON cannot say the date${at}: it is out of range`)
            return { $date: shown.toISOString() }
        }
        if (isBytes(shown)) return { $bytes: base64(shown) }
        if (isCounter(shown)) return { $counter: shown.value }
        if (isImmutableString(shown)) return { $fixed: shown.val }
        const fixed = fixedIn(shown)
        const value = (key: string | number, inner: unknown): Json =>
            fixed?.has(`${key}`) ? { $fixed: String(inner) } : said(inner, `${path}/${key}`)
        if (Array.isArray(shown)) return shown.map((inner, index) => value(index, inner))
        if (isPlain(shown)) {
            const map = Object.fromEntries(Object.entries(shown).map(([key, inner]) => [key, value(key, inner)]))
            return Object.keys(map).some((key) => key.startsWith("$")) ? { $map: map } : map
        }
    }
    throw new TypeError(`a document does not hold this${at}: ${String(shown)}`)
}

/**
 * What was said by {@link toJSON}, as it is stored: for `Repo.create`, or to be assigned in a change.
 * Nothing checks that it is a `T`.
 *
 * @throws TypeError for what that does not say, with what it is.
 */
export function fromJSON<T = Record<string, unknown>>(json: Json): T {
    return stored(json) as T
}

function stored(json: Json): unknown {
    if (typeof json !== "object" || json === null) return json
    if (Array.isArray(json)) return json.map(stored)
    const entries = Object.entries(json as { readonly [key: string]: Json })
    const [tag] = entries.find(([key]) => key.startsWith("$")) ?? []
    if (tag === undefined) return Object.fromEntries(entries.map(([key, inner]) => [key, stored(inner)]))
    const read = entries.length === 1 ? TAGS[tag] : undefined
    const value = read?.(entries[0]![1])
    if (value === undefined) throw new TypeError(`this is no ${tag}: ${JSON.stringify(json).slice(0, 100)}`)
    return value
}

/** Each gives undefined for what it does not know. */
const TAGS: Record<string, ((json: Json) => unknown) | undefined> = {
    $fixed: (json) => (typeof json === "string" ? new ImmutableString(json) : undefined),
    $counter: (json) => (Number.isSafeInteger(json) ? new Counter(json as number) : undefined),
    $date(json) {
        const date = new Date(typeof json === "string" ? json : NaN)
        return !Number.isNaN(date.getTime()) && date.toISOString() === json ? date : undefined
    },
    $bytes(json) {
        try {
            const bytes = Uint8Array.from(atob(json as string), (char) => char.charCodeAt(0))
            return base64(bytes) === json ? bytes : undefined
        } catch {
            return undefined
        }
    },
    $int(json) {
        if (typeof json !== "string" || !/^-?\d{1,20}$/.test(json)) return undefined
        const int = BigInt(json)
        return String(int) === json && isStorable(int) ? int : undefined
    },
    $number: (json) => (["NaN", "Infinity", "-Infinity"].includes(json as string) ? Number(json) : undefined),
    $map(json) {
        if (typeof json !== "object" || json === null || Array.isArray(json)) return undefined
        return Object.fromEntries(Object.entries(json).map(([key, inner]) => [key, stored(inner)]))
    },
}

function base64(bytes: Uint8Array): string {
    let text = ""
    for (const byte of bytes) text += String.fromCharCode(byte)
    return btoa(text)
}
