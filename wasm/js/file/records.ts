// The records of a file: a header, what the writes do (in JSON) and the bytes that they put, each with
// a checksum.

import { Buffer } from "node:buffer"
import type { FileHandle } from "node:fs/promises"
import { crc32 } from "node:zlib"
import type { StorageKey, StorageWrite } from "../storage.js"
import { exactly, READ_BYTES, writeAll, type Read } from "./disk.js"

/** Begins a record. Then come the lengths of its writes and of its data, the checksum, and the state. */
const MARK = 0x52435631
export const HEADER_BYTES = 20
const STATE_AT = 16
const ACKNOWLEDGED = 1

/** A write as the file has it. */
export type Step =
    ["put", StorageKey, length: number, crc: number] | ["remove", StorageKey] | ["range", StorageKey, ...unknown[]]

/** Where the bytes of a chunk lie. */
export interface Extent {
    readonly at: number
    readonly length: number
    readonly crc: number
}

export function step(write: StorageWrite): Step {
    if ("put" in write) return ["put", checked(write.put), write.data.length, crc32(write.data)]
    if ("remove" in write) return ["remove", checked(write.remove)]
    return ["range", checked(write.removeRange), write.from ?? null, write.below ?? null]
}

function checked(key: StorageKey): StorageKey {
    const own = [...key]
    if (own.some((part) => typeof part !== "string")) throw new TypeError("a key is a list of strings")
    return own
}

/** The bytes of a record at `at`, and where its data begins in the file. */
export function recordOf(
    salt: number,
    at: number,
    steps: Step[],
    data: Uint8Array[],
): { record: Buffer; dataAt: number } {
    const writes = Buffer.from(JSON.stringify(steps))
    const header = Buffer.alloc(HEADER_BYTES)
    header.writeUInt32LE(MARK, 0)
    header.writeUInt32LE(writes.length, 4)
    header.writeUInt32LE(
        data.reduce((sum, { length }) => sum + length, 0),
        8,
    )
    header.writeUInt32LE(checksum(salt, at, header, writes), 12)
    return { record: Buffer.concat([header, writes, ...data]), dataAt: at + HEADER_BYTES + writes.length }
}

/** Not the same at another place or in another file: what lies there by chance is no record. */
function checksum(salt: number, at: number, header: Buffer, writes: Buffer): number {
    const place = Buffer.alloc(12)
    place.writeUInt32LE(salt, 0)
    place.writeDoubleLE(at, 4)
    return crc32(writes, crc32(place, crc32(header.subarray(0, 12))))
}

export interface LogRecord {
    readonly steps: Step[]
    readonly dataAt: number
    readonly end: number
    readonly isAcknowledged: boolean
}

/** The record that begins at `at`, if one does. Its data may be damaged, or not be there. */
export async function recordAt(read: Read, salt: number, at: number): Promise<LogRecord | undefined> {
    const header = await read(at, HEADER_BYTES)
    if (header.length < HEADER_BYTES || header.readUInt32LE(0) !== MARK) return undefined
    // Its own: the next reading may take its place.
    const own = Buffer.from(header)
    const dataAt = at + HEADER_BYTES + own.readUInt32LE(4)
    const writes = await read(at + HEADER_BYTES, own.readUInt32LE(4))
    if (writes.length < own.readUInt32LE(4) || checksum(salt, at, own, writes) !== own.readUInt32LE(12))
        return undefined
    const steps = JSON.parse(writes.toString()) as Step[]
    return {
        steps,
        dataAt,
        end: dataAt + own.readUInt32LE(8),
        isAcknowledged: own.readUInt32LE(STATE_AT) === ACKNOWLEDGED,
    }
}

/** Whether what begins at `at`, and is no record, was never acknowledged: nothing that was comes after it. */
export async function isTorn(read: Read, salt: number, at: number, size: number): Promise<boolean> {
    const header = await read(at, HEADER_BYTES)
    if (header.length === HEADER_BYTES && header.readUInt32LE(STATE_AT) === ACKNOWLEDGED) return false
    const mark = Buffer.alloc(4)
    mark.writeUInt32LE(MARK, 0)
    for (let from = at + 1; from < size;) {
        const piece = Buffer.from(await read(from, READ_BYTES))
        for (let found = piece.indexOf(mark); found >= 0; found = piece.indexOf(mark, found + 1)) {
            if (await recordAt(read, salt, from + found)) return false
        }
        from += Math.max(1, piece.length - 3)
    }
    return true
}

export async function areWhole(handle: FileHandle, steps: Step[], dataAt: number): Promise<boolean> {
    for (const write of indexed(steps, dataAt)) {
        if ("put" in write && (await bytesAt(handle, extentOf(write.data))) === undefined) return false
    }
    return true
}

/** The same writes, with the places of the data instead of it. */
export function indexed(steps: Step[], dataAt: number): StorageWrite[] {
    let at = dataAt
    return steps.map((step) => {
        if (step[0] === "remove") return { remove: step[1] }
        if (step[0] === "range") {
            const [, removeRange, from, below] = step as [string, StorageKey, string | null, string | null]
            return { removeRange, ...(from !== null && { from }), ...(below !== null && { below }) }
        }
        const [, put, length, crc] = step as ["put", StorageKey, number, number]
        const data = new Uint8Array(Float64Array.of(at, length, crc).buffer)
        at += length
        return { put, data }
    })
}

export function extentOf(data: Uint8Array): Extent {
    const [at = 0, length = 0, crc = 0] = new Float64Array(data.slice().buffer)
    return { at, length, crc }
}

/** The bytes of a chunk; undefined if they are damaged. */
export async function bytesAt(handle: FileHandle, { at, length, crc }: Extent): Promise<Uint8Array | undefined> {
    const bytes = await exactly(handle, at, length)
    return bytes.length === length && crc32(bytes) === crc ? new Uint8Array(bytes.buffer) : undefined
}

/** Of no effect for what is read, but it tells damage from what a crash tore; so it need not be synced. */
export async function acknowledge(handle: FileHandle, at: number): Promise<void> {
    const state = Buffer.alloc(4)
    state.writeUInt32LE(ACKNOWLEDGED, 0)
    await writeAll(handle, state, at + STATE_AT).catch(() => {})
}
