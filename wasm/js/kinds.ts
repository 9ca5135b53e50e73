// What a value is, of whatever realm its class is: an iframe's, `node:vm`'s, that of a test runner.

function isA(value: unknown, kind: string): boolean {
    return Object.prototype.toString.call(value) === `[object ${kind}]`
}

export function isDate(value: unknown): value is Date {
    return isA(value, "Date")
}

export function isBytes(value: unknown): value is Uint8Array {
    return isA(value, "Uint8Array")
}
