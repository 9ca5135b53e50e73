// What is sent to others and not stored: plain data of its own, whatever it was.

import { isBytes, isDate, isPlain } from "./kinds.js"

/** As the host sends them, and Automerge's clients take them. */
const BYTES_MAX = 1024 * 1024
const DEPTH_MAX = 60

/** A number, or the head of anything else, has no more bytes in CBOR. */
const HEAD_BYTES = 9

/**
 * A copy that no framework's proxy is in, and that can be posted to a Worker and sent.
 *
 * @throws TypeError for what is no data, RangeError for too much of it.
 */
export function plain(message: unknown): unknown {
    let bytes = 0
    const weigh = (more: number): void => {
        bytes += more
        if (bytes > BYTES_MAX) throw new RangeError("a message has more than 1 MiB")
    }
    const copy = (value: unknown, path: string, depth: number): unknown => {
        weigh(HEAD_BYTES)
        if (typeof value === "string") weigh(new TextEncoder().encode(value).length)
        if (value === null || ["undefined", "boolean", "number", "string"].includes(typeof value)) return value
        const is = Object.prototype.toString.call(value).slice(8, -1)
        const isData = isPlain(value) || Array.isArray(value) || isDate(value) || isBytes(value)
        if (typeof value !== "object" || !isData) {
            const what =
                typeof value !== "object" ? `a ${typeof value}` : `a ${is === "Object" ? "class's instance" : is}`
            throw new TypeError(`cannot send ${what} at /${path}: a message holds plain data`)
        }
        if (isDate(value)) return new Date(value)
        if (isBytes(value)) {
            weigh(value.length)
            return new Uint8Array(value)
        }
        if (depth > DEPTH_MAX) throw new RangeError("a message is nested too deep, or contains itself")
        const at = (key: string): string => (path === "" ? key : `${path}/${key}`)
        if (Array.isArray(value)) return value.map((inner, i) => copy(inner, at(`${i}`), depth + 1))
        const entries = Object.entries(value).map(([key, inner]) => {
            weigh(HEAD_BYTES + new TextEncoder().encode(key).length)
            return [key, copy(inner, at(key), depth + 1)] as const
        })
        return Object.fromEntries(entries)
    }
    return copy(message, "", 1)
}
