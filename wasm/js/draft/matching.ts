// Which elements of a list are which values of an array that is assigned to it, so that what stays
// is not touched.

import { Counter, isImmutableString } from "../counter.js"
import { isBytes, isDate } from "../kinds.js"
import { type Entry, isNode, type ListNode, TextNode } from "../tree.js"
import { contextIn, nodeIn, sourcesOf } from "./context.js"
import { isObject, wellFormed } from "./values.js"

/** Whether a value takes the place of an element as what `map` makes of it: a number, or a list of them. */
export function isLike(item: Entry, value: unknown): boolean {
    if (isNode(item)) return item.kind === "list" && Array.isArray(value) && !contextIn(value)
    if (typeof item === "string" || item instanceof Counter) return false
    return isObject(value) ? isDate(value) || isBytes(value) : typeof value !== "string" && value !== undefined
}

/** Whether an array is another version of a list in a list: both begin or end with the same. */
export function resembles(item: Entry, value: unknown): boolean {
    if (!isLike(item, value) || !Array.isArray(value) || !isNode(item)) return false
    const { items } = item as ListNode
    if (items.length === 0 || value.length === 0) return items.length === value.length
    return [0, -1].some((at) => origins([items.at(at)!], [value.at(at)])[0] === 0)
}

/** How many of so many places are so, one after the other. */
export function count(most: number, is: (i: number) => boolean): number {
    for (let i = 0; i < most; i++) if (!is(i)) return i
    return most
}

/**
 * For each of `values`, which of `items` it is: an object by what it is or was copied from, anything
 * else by its value. None of them twice; -1 for what is new.
 */
export function origins(items: readonly Entry[], values: readonly unknown[]): number[] {
    // Objects by what they are, or as they were shown.
    const known = new Map<unknown, string>()
    const ids = new Set<string>()
    for (const item of items) {
        if (!isNode(item) || item.kind === "text") continue
        known.set(item, `o${item.id}`)
        ids.add(item.id)
        if (!item.stale) known.set(item.shown, `o${item.id}`)
    }
    const drafted = new Set(values.map((value) => isObject(value) && known.get(nodeIn(value))))
    const keys = values.map((value) => {
        // The object itself goes before its copies.
        const source = sourcesOf(value).find(({ id }) => ids.has(id) && !drafted.has(`o${id}`))
        return source ? `o${source.id}` : valueKey(value, known)
    })
    const itemKeys = items.map(itemKey)

    const from = keys.map(() => -1)
    const shorter = Math.min(keys.length, itemKeys.length)
    let start = 0
    for (; start < shorter && keys[start] === itemKeys[start]; start++) from[start] = start
    let [end, itemsEnd] = [keys.length, itemKeys.length]
    for (; Math.min(end, itemsEnd) > start && keys[end - 1] === itemKeys[itemsEnd - 1];) from[--end] = --itemsEnd
    const places = new Map<unknown, number[]>()
    for (let i = itemsEnd - 1; i >= start; i--) {
        const same = places.get(itemKeys[i])
        if (same) same.push(i)
        else places.set(itemKeys[i], [i])
    }
    for (let i = start; i < end; i++) from[i] = places.get(keys[i])?.pop() ?? -1
    return from
}

/** What tells an element from others, and is the same for equal values that are no objects. */
function itemKey(item: Entry): unknown {
    if (item instanceof TextNode) return item.blocks.length === 0 ? `s${item.text}` : item
    if (isNode(item)) return `o${item.id}`
    return item instanceof Counter ? item : valueKey(item)
}

function valueKey(value: unknown, known?: ReadonlyMap<unknown, string>): unknown {
    if (typeof value === "string") return `s${wellFormed(value)}`
    if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) return Number(value)
    if (Number.isNaN(value)) return "NaN"
    if (!isObject(value)) return value
    if (isDate(value)) return `d${value.getTime()}`
    if (isBytes(value)) return `b${value.join()}`
    if (isImmutableString(value)) return `s${wellFormed(value.val)}`
    return known?.get(nodeIn(value) ?? value) ?? nodeIn(value) ?? value
}

/** A longest sequence of indexes whose numbers ascend; those with a negative number are in none. */
export function ascending(numbers: readonly number[]): number[] {
    // The last index of the best sequence of each length, and what comes before each index.
    const [last, before]: [number[], number[]] = [[], []]
    numbers.forEach((number, index) => {
        if (number < 0) return
        let [low, high] = [0, last.length]
        while (low < high) {
            const middle = (low + high) >> 1
            if (numbers[last[middle]!]! < number) low = middle + 1
            else high = middle
        }
        before[index] = last[low - 1] ?? -1
        last[low] = index
    })
    const sequence: number[] = []
    for (let index = last.at(-1) ?? -1; index >= 0; index = before[index]!) sequence.push(index)
    return sequence.reverse()
}
