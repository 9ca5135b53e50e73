// Plain data out of drafts, and into them.

import { Counter, isCounter } from "../counter.js"
import { isBytes, isDate, isPlain } from "../kinds.js"
import { type Entry, fixedIn, fixedOf, noteFixed } from "../tree.js"
import { contextIn } from "./context.js"
import type { Draft } from "./types.js"
import { fix, isObject } from "./values.js"

/**
 * A copy of a draft, or of what a document shows, as plain data that can be changed. Fixed strings in
 * it are stored as fixed ones again.
 */
export function snapshot<T>(value: T): Draft<T> {
    return copied(value) as Draft<T>
}

/** What a map has, if it is a draft, without drafts of it. */
export function entriesOf(draft: object): ReadonlyMap<string, Entry> | undefined {
    const { edit, node } = contextIn(draft) ?? {}
    edit?.checkOpen()
    return node?.kind === "map" ? node.entries : undefined
}

/** Puts all that an object has into a draft. */
export function fill(draft: object, from: object): void {
    const fixed = fixedIn(from)
    for (const [key, value] of Object.entries(from)) {
        ;(draft as Record<string, unknown>)[key] = fixed?.has(key) ? fix(value) : value
    }
}

function copied(value: unknown): unknown {
    if (!isObject(value)) return value
    if (isDate(value)) return new Date(value)
    if (isBytes(value)) return new Uint8Array(value)
    if (isCounter(value)) return new Counter(value.value)
    if (!Array.isArray(value) && !isPlain(value)) return value
    const context = contextIn(value)
    context?.edit.checkOpen()
    const copy = Array.isArray(value)
        ? value.map(copied)
        : Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, copied(inner)]))
    const fixed = context && context.node.kind !== "text" ? fixedOf(context.node) : fixedIn(value)
    noteFixed(copy, [...(fixed ?? [])])
    return copy
}
