/** The values that JavaScript has no type for. */

// Automerge's own names, so that its counters and fixed strings are known here and ours there,
// even if a page has loaded a package twice.
const COUNTER = Symbol.for("_am_counter")
const IMMUTABLE_STRING = Symbol.for("_am_immutableString")

/**
 * A whole number to which peers add at the same time, without losing what the others added.
 * It counts in a draft only; what a document shows is frozen.
 */
export class Counter {
    readonly [COUNTER] = true

    constructor(readonly value = 0) {}

    increment(_by = 1): void {
        throw new TypeError("a counter can be changed in the draft of a change only")
    }

    decrement(by = 1): void {
        this.increment(-by)
    }

    valueOf(): number {
        return this.value
    }

    toString(): string {
        return String(this.value)
    }

    toJSON(): number {
        return this.value
    }
}

/**
 * A string that is replaced as a whole and never edited, such as a key or an enumeration's value.
 * Only for assigning in a draft; a document shows a plain string.
 */
export class ImmutableString {
    readonly [IMMUTABLE_STRING] = true

    constructor(readonly val: string) {}

    toString(): string {
        return this.val
    }

    toJSON(): string {
        return this.val
    }
}

/** @internal */
export function isCounter(value: object): value is { value: number } {
    return COUNTER in value
}

/** @internal */
export function isImmutableString(value: object): value is { val: string } {
    return IMMUTABLE_STRING in value
}
