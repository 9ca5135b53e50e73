// What a value is, of whatever realm its class is: an iframe's, `node:vm`'s, that of a test runner.

function isA(value: unknown, kind: string): boolean {
    return Object.prototype.toString.call(value) === `[object ${kind}]`
}

/** Of this or another realm, as of an iframe; no array, and no instance of a class. */
export function isPlain(value: unknown): value is object {
    if (typeof value !== "object" || value === null) return false
    const prototype: unknown = Object.getPrototypeOf(value)
    return prototype === null || Object.getPrototypeOf(prototype) === null
}

export function isDate(value: unknown): value is Date {
    return isA(value, "Date")
}

export function isBytes(value: unknown): value is Uint8Array {
    return isA(value, "Uint8Array")
}

/** Whether an integer has at most 64 bits, with a sign or without one. */
export function isStorable(value: bigint): boolean {
    return BigInt.asIntN(64, value) === value || BigInt.asUintN(64, value) === value
}
