// What can be done to a list of a draft, beside what arrays do of themselves.

import type { Prop, View } from "../types.js"
import { listOf } from "./access.js"
import { checkIndex, pointer } from "./faults.js"

/**
 * Inserts into a list of a draft, before the element at `index`.
 *
 * @throws RangeError unless `index` is from 0 to the list's length.
 */
export function insertAt<E>(list: readonly E[], index: number, ...values: (E | View<E>)[]): void {
    const { edit, node } = listOf(list)
    checkIndex(index, node.items.length, () => edit.tree.path(node))
    edit.spliceList(node, index, 0, values)
}

/**
 * Removes `count` elements from a list of a draft, from `index` on.
 *
 * @throws RangeError if the list has not that many.
 */
export function deleteAt(list: readonly unknown[], index: number, count = 1): void {
    const { edit, node } = listOf(list)
    const at = (): Prop[] => edit.tree.path(node)
    checkIndex(index, node.items.length, at)
    if (!Number.isInteger(count) || count < 0)
        throw new RangeError(`cannot delete ${count} elements at ${pointer(at())}`)
    checkIndex(index + count, node.items.length, at)
    edit.spliceList(node, index, count, [])
}

/** The methods of draft lists that differ from Array's. */
export const listMethods = {
    push(...values: unknown[]): number {
        const { edit, node } = listOf(this)
        edit.spliceList(node, node.items.length, 0, values)
        return node.items.length
    },

    unshift(...values: unknown[]): number {
        const { edit, node } = listOf(this)
        edit.spliceList(node, 0, 0, values)
        return node.items.length
    },

    pop(): unknown {
        return listMethods.splice.call(this, -1, 1)[0]
    },

    shift(): unknown {
        return listMethods.splice.call(this, 0, 1)[0]
    },

    splice(...args: [start?: number, deleted?: number, ...values: unknown[]]): unknown[] {
        const { edit, node } = listOf(this)
        const { length } = node.items
        const [start, deleted, ...values] = args
        const index = relative(start, length)
        const count =
            args.length < 2 ? (args.length && length) - index : relative(Math.max(deleted ?? 0, 0), length - index)
        const removed = node.items.slice(index, index + Math.max(count, 0)).map((entry) => edit.show(entry, node, ""))
        edit.spliceList(node, index, removed.length, values)
        return removed
    },

    insertAt(index: number, ...values: unknown[]): unknown {
        insertAt(this as unknown as unknown[], index, ...values)
        return this
    },

    deleteAt(index: number, count?: number): unknown {
        deleteAt(this as unknown as unknown[], index, count)
        return this
    },

    fill(value: unknown, start?: number, end?: number): unknown {
        const { edit, node } = listOf(this)
        const { length } = node.items
        const to = end === undefined ? length : relative(end, length)
        for (let index = relative(start, length); index < to; index++) edit.put(node, index, value)
        return this
    },

    sort(compare?: (one: unknown, other: unknown) => number): unknown {
        return rearranged(this, (values) => values.sort(compare))
    },

    reverse(): unknown {
        return rearranged(this, (values) => values.reverse())
    },

    copyWithin(target: number, start: number, end?: number): unknown {
        return rearranged(this, (values) => values.copyWithin(target, start, end))
    },
}

function rearranged(list: object, action: (values: unknown[]) => void): object {
    const { edit, node } = listOf(list)
    edit.checkWritable(node)
    const values = node.items.map((item) => edit.show(item, node, ""))
    action(values)
    edit.assignList(node, values)
    return list
}

/** An index as Array's methods take it: negative ones count from the end. */
function relative(index: number | undefined, length: number): number {
    const whole = Math.trunc(Number(index)) || 0
    return whole < 0 ? Math.max(length + whole, 0) : Math.min(whole, length)
}
