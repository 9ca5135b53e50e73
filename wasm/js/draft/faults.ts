// What is said of values and places that a draft does not take.

import type { Path, Prop } from "../types.js"
import { isObject } from "./values.js"

/** Where something is, when an error has to tell. */
export type PathOf = () => Prop[]

export function refusal(value: unknown, at: PathOf, reason: string): TypeError {
    const what = typeof value === "string" ? value : describe(value)
    return new TypeError(`cannot store ${what} at ${pointer(at())}${reason && `: ${reason}`}`)
}

export function describe(value: unknown): string {
    if (isObject(value)) return `an instance of ${value.constructor?.name || "an unknown class"}`
    return typeof value === "function" || typeof value === "symbol" ? `a ${typeof value}` : String(value)
}

export function pointer(path: Path): string {
    return "/" + path.map((prop) => String(prop).replaceAll("~", "~0").replaceAll("/", "~1")).join("/")
}

export function checkIndex(index: number, length: number, at: PathOf): void {
    if (!Number.isInteger(index) || index < 0 || index > length) {
        throw new RangeError(`there is no index ${String(index)} at ${pointer(at())}: it must be from 0 to ${length}`)
    }
}

export function checkKey(key: string | symbol, at: PathOf): string {
    if (typeof key !== "string") throw new TypeError(`cannot use a symbol as a key, at ${pointer(at())}`)
    // Automerge refuses it too: a copy of the document would get another prototype.
    if (key === "__proto__") throw new TypeError(`cannot use __proto__ as a key, at ${pointer(at())}`)
    return key
}
