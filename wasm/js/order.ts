/**
 * Items of a map that are in an order, in which they can be moved by several people at once.
 *
 * @module reconverge/order
 */

import { ImmutableString, isImmutableString } from "./counter.js"
import { entriesOf } from "./draft.js"
import { type Entry, isNode } from "./tree.js"
import type { View } from "./types.js"

/** An item of a map that is in order: a map, as are all of them. */
export interface Ordered {
    /** Where it is among the others; kept by {@link insertInOrder} and {@link moveInOrder}. */
    order?: ImmutableString | string
}

/**
 * The items of a map in their order, each with its key; those that no order was given to come last,
 * by their keys. Each item is the object that is in the map.
 */
export function inOrder<T>(map: Readonly<Record<string, T>> | undefined): [id: string, item: T][] {
    return placed(map ?? {}).map(({ id, item }) => [id, item ?? map![id]!])
}

interface Placed<T> {
    id: string
    order: string | undefined
    item?: T
}

/** Of a draft, no item is made a draft of for that. */
function placed<T>(map: Readonly<Record<string, T>>): Placed<T>[] {
    const entries = entriesOf(map)
    const items: Placed<T>[] = entries
        ? Array.from(entries, ([id, entry]) => ({ id, order: orderIn(entry) }))
        : Object.entries(map).map(([id, item]) => ({ id, item, order: orderOf(item) }))
    const compare = (one: string, other: string): number => (one < other ? -1 : one > other ? 1 : 0)
    return items.sort((one, other) => {
        if (one.order === undefined || other.order === undefined) {
            const isLater = Number(one.order === undefined) - Number(other.order === undefined)
            return isLater || compare(one.id, other.id)
        }
        return compare(one.order, other.order) || compare(one.id, other.id)
    })
}

/**
 * Puts an item into a map of a draft, before the one that is at `index` in its order; at the end if
 * `index` is left out. Several people may do so at once: all of their items are there, and of those
 * that they put at the same place, each may be between the others'. To replace an item, delete it first.
 *
 * @param item plain data, or what a document shows, whose fixed strings are kept.
 * @throws TypeError if there is no map; RangeError if there is an item with this key, or `index` is no
 * number from 0 on.
 */
export function insertInOrder<T extends object>(
    map: Record<string, T>,
    id: string,
    item: Omit<NoInfer<T>, "order"> | Omit<View<NoInfer<T>>, "order">,
    index = Infinity,
): void {
    checkMap(map)
    checkIndex(index)
    if (Object.hasOwn(map, id)) throw new RangeError(`there is an item ${id} already`)
    // A draft stores a copy, with what is fixed in it.
    map[id] = (entriesOf(map) ? item : { ...item }) as T
    moveInOrder(map, id, index)
}

/**
 * Moves an item of a map of a draft to `index` in its order, counted without it. It is the same item
 * afterwards: what others edit in it meanwhile is kept, and if several move it at once, it ends where
 * one of them moved it. One that somebody deleted meanwhile stays deleted.
 *
 * @throws TypeError if there is no map; RangeError if there is no such item, or `index` is no number from 0
 * on.
 */
export function moveInOrder<T extends object>(map: Record<string, T>, id: string, index: number): void {
    checkMap(map)
    const item = map[id] as Ordered | undefined
    if (typeof item !== "object" || item === null) throw new RangeError(`there is no item ${id} to be put in order`)
    checkIndex(index)
    const others = placed(map).filter((other) => other.id !== id)
    const at = Math.min(Math.trunc(index), others.length)
    // Those before it must have a place, for it to have one behind them; and of those that came to
    // have the same one, as others wrote it, the later ones make room.
    const orders = others.map(({ order }) => order)
    let first = at
    while (first > 0 && orders[first - 1] === undefined) first--
    let last = at
    while (last < orders.length && orders[last] === orders[at - 1] && orders[last] !== undefined) last++
    const moved = [...others.slice(first, at), { id }, ...others.slice(at, last)]
    let before = orders[first - 1]
    for (const each of moved) {
        before = between(before, orders[last])
        ;(map[each.id] as Ordered).order = new ImmutableString(before)
    }
}

function checkMap(map: unknown): void {
    if (typeof map !== "object" || map === null)
        throw new TypeError(`items are put in order in a map, not in ${String(map)}: store one first, such as {}`)
}

function checkIndex(index: number): void {
    // What is left of 0 is no place, and -1 the last one elsewhere.
    if (!(typeof index === "number" && index >= 0)) throw new RangeError("an index is a number from 0 on")
}

function orderIn(item: Entry): string | undefined {
    if (!isNode(item) || item.kind !== "map") return undefined
    const order = item.entries.get("order")
    return checked(isNode(order) && order.kind === "text" ? order.text : order)
}

/** Of anything else than what was made here, none. */
function orderOf(item: unknown): string | undefined {
    if (typeof item !== "object" || item === null) return undefined
    const { order } = item as { order?: unknown }
    return checked(typeof order === "object" && order && isImmutableString(order) ? order.val : order)
}

function checked(key: unknown): string | undefined {
    return typeof key === "string" && isKey(key) ? key : undefined
}

/*
 * A place is a number, written so that the order of strings is that of numbers: a letter for the
 * count of the digits before the point, these digits, and those behind the point. What is put last or
 * first gets the next whole number, so that long lists have short keys; what is put between two gets
 * a number between them. Some digits by chance follow, as two people who put something at one place
 * must not come to the same number: whoever puts a third between theirs would have to move one of them.
 */

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
const BASE = DIGITS.length

/** How many characters the whole part has, with its letter: "a" to "z" count up, "Z" to "A" are below zero. */
function wholeLength(letter: string): number {
    return letter >= "a" ? letter.charCodeAt(0) - 95 : 92 - letter.charCodeAt(0)
}

function isKey(text: string): boolean {
    if (!/^[A-Za-z][0-9A-Za-z]+$/.test(text)) return false
    const whole = wholeLength(text[0]!)
    // The fraction 0 is written as none, so that there is always something below one that is written.
    return text.length >= whole && (text.length === whole || !text.endsWith("0"))
}

/** A place behind `before`, if there is one, and before `after`, if there is one. */
function between(before: string | undefined, after: string | undefined): string {
    if (before === undefined) {
        if (after === undefined) return `a0${chance()}`
        const whole = after.slice(0, wholeLength(after[0]!))
        const less = step(whole, -1)
        if (isKey(less)) return less + chance()
        // Nobody gets to the ends by moving items, but anybody may write there; then some share a place.
        return whole < after ? whole + fraction("", after.slice(whole.length)) + chance() : whole
    }
    const whole = before.slice(0, wholeLength(before[0]!))
    const next = step(whole, 1)
    if (isKey(next) && (after === undefined || (next < after && !after.startsWith(next)))) return next + chance()
    const end = after?.startsWith(whole) ? after.slice(whole.length) : undefined
    return whole + fraction(before.slice(whole.length), end) + chance()
}

/** Three digits, the last of which is not 0. */
function chance(): string {
    const below = (n: number): number => Math.floor(Math.random() * n)
    return DIGITS[below(BASE)]! + DIGITS[below(BASE)]! + DIGITS[1 + below(BASE - 1)]!
}

/** The next whole number, or the one before. */
function step(whole: string, by: 1 | -1): string {
    const [full, empty] = by > 0 ? ["z", "0"] : ["0", "z"]
    const digits = [...whole]
    for (let at = digits.length - 1; at > 0; at--) {
        if (digits[at] !== full) {
            digits[at] = DIGITS[DIGITS.indexOf(digits[at]!) + by]!
            return digits.join("")
        }
        digits[at] = empty!
    }
    const letter =
        whole === "a0" && by < 0 ? "Z" : whole === "Zz" && by > 0 ? "a" : String.fromCharCode(whole.charCodeAt(0) + by)
    return letter + empty!.repeat(wholeLength(letter) - 1)
}

/** The digits of a fraction above `before` and below `after`, or below 1. */
function fraction(before: string, after: string | undefined): string {
    let digits = ""
    for (let at = 0; ; at++) {
        const low = at < before.length ? DIGITS.indexOf(before[at]!) : 0
        const high = after !== undefined && at < after.length ? DIGITS.indexOf(after[at]!) : BASE
        if (high - low > 1) return digits + DIGITS[(low + high) >> 1]!
        digits += DIGITS[low]!
        // Below a smaller digit, all digits are free.
        if (high > low) after = undefined
    }
}
