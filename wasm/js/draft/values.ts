// Values as a draft takes them, before they are stored.

import { ImmutableString, isImmutableString } from "../counter.js"
import { isBytes, isDate } from "../kinds.js"
import type { NewValue } from "../operations.js"
import { type Entry, TextNode } from "../tree.js"

export function isObject<T>(value: T): value is T & object {
    return typeof value === "object" && value !== null
}

/** Documents hold no halves of surrogate pairs; the host would replace them likewise. */
export function wellFormed(text: string): string {
    return text.replace(/\p{Surrogate}/gu, "\uFFFD")
}

export function isFixed(value: unknown): boolean {
    return isObject(value) && isImmutableString(value)
}

/** A string in the place of a fixed one is one too. */
export function ofKind(value: unknown, old: Entry | undefined): unknown {
    return typeof old === "string" ? fix(value) : value
}

export function fix(value: unknown): unknown {
    return typeof value === "string" ? new ImmutableString(value) : value
}

/** How many elements or keys it has. */
export function sizeOf(value: object): number {
    return Array.isArray(value) ? value.length : Object.keys(value).length
}

export function isSameValue(one: unknown, other: unknown): boolean {
    if (!isObject(one) || !isObject(other)) return false
    if (isDate(one)) return isDate(other) && Object.is(one.getTime(), other.getTime())
    if (!isBytes(one) || !isBytes(other)) return false
    return one.length === other.length && one.every((byte, i) => byte === other[i])
}

/** Whether a value is stored already. */
export function same(old: Entry | undefined, stored: NewValue): boolean {
    if (!isObject(stored)) return Object.is(old, stored)
    if (isDate(stored) || isBytes(stored)) return isSameValue(old, stored)
    if (!("make" in stored) || stored.make !== "text") return false
    // Another text object would lose what others type in this one.
    return old instanceof TextNode ? old.text === stored.text && old.blocks.length === 0 : old === stored.text
}
