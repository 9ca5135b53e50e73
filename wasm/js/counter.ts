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
    /** @ignore What counters are known by, Automerge's too. */
    readonly [COUNTER] = true

    /** @param value where it begins: a whole number within ±2^53. */
    constructor(
        /** The sum so far: a whole number. */
        readonly value = 0,
    ) {}

    /**
     * Adds to it, in a draft.
     *
     * @throws TypeError outside of a draft; RangeError if that is no whole number within ±2^53.
     */
    increment(_by = 1): void {
        throw new TypeError("a counter can be changed in the draft of a change only")
    }

    /** Subtracts from it, in a draft. */
    decrement(by = 1): void {
        this.increment(-by)
    }

    /** So that it can be compared and added to. */
    valueOf(): number {
        return this.value
    }

    /** In decimal. */
    toString(): string {
        return String(this.value)
    }

    /** A plain number. */
    toJSON(): number {
        return this.value
    }
}

/**
 * A string that is replaced as a whole and never edited, such as a key or an enumeration's value.
 * Only for assigning in a draft; a document shows a plain string.
 */
export class ImmutableString {
    /** @ignore What fixed strings are known by, Automerge's too. */
    readonly [IMMUTABLE_STRING] = true

    /** @param val its characters. */
    constructor(
        /** Its characters. */
        readonly val: string,
    ) {}

    /** Its characters. */
    toString(): string {
        return this.val
    }

    /** A plain string. */
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
