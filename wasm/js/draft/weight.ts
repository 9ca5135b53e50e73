// How much a change may hold, weighed while it is made.

import { isBytes } from "../kinds.js"
import type { NewValue, Operation } from "../operations.js"

/**
 * Most that a change may weigh: the bytes of the change that the host makes of it are fewer, and
 * nobody keeps one of more than 96 MiB or 16,777,216 operations. What was shown must be kept.
 */
export const WEIGHT_MAX = 96 * 1024 * 1024

/** Bytes that an operation has at most, besides its text: its object, key, kind and what it replaces. */
const OPERATION_WEIGHT = 40

/** An element mostly follows on the one before, in the same list. */
const INSERTED_WEIGHT = 20

/** A character is an operation that mostly follows on the one before: 4 bytes, and 3 of UTF-8 at most. */
const CHARACTER_WEIGHT = 7

/** What is removed is named: object, element and operation. */
const REMOVED_WEIGHT = 16

export function weightOf(operation: Operation): number {
    switch (operation[0]) {
        case "splice":
            return OPERATION_WEIGHT + operation[3] * REMOVED_WEIGHT + operation[4].length * CHARACTER_WEIGHT
        case "delete":
            return OPERATION_WEIGHT + operation[3] * REMOVED_WEIGHT
        case "insert":
            return operation[3].reduce((sum: number, value) => sum + INSERTED_WEIGHT + weightOfValue(value), 0)
        case "put":
            return OPERATION_WEIGHT + String(operation[2]).length * 3 + weightOfValue(operation[3])
        case "mark":
            return 2 * OPERATION_WEIGHT + operation[4].length * 3 + weightOfValue(operation[5])
        case "increment":
            return OPERATION_WEIGHT + String(operation[2]).length * 3
    }
}

function weightOfValue(value: NewValue): number {
    if (typeof value === "string") return value.length * 3
    if (typeof value !== "object" || value === null) return 0
    if (isBytes(value)) return value.length
    return (("text" in value && value.text?.length) || 0) * CHARACTER_WEIGHT
}
