// Reading and writing bytes of a file, all that are asked for.

import { Buffer } from "node:buffer"
import { open, type FileHandle } from "node:fs/promises"
import { dirname } from "node:path"
import { platform } from "node:process"

/** So much is read at once while the file is opened. */
export const READ_BYTES = 256 * 1024

/** How the system calls what failed. */
export const codeOf = (error: unknown): string | undefined => (error as { code?: string } | undefined)?.code

export type Read = (at: number, length: number) => Promise<Buffer>

/** Reads within the file's size, by large pieces. */
export function reader(handle: FileHandle, size: number): Read {
    let from = 0
    let piece = Buffer.alloc(0)
    return async (at, length) => {
        const wanted = Math.max(0, Math.min(length, size - at))
        if (at < from || at + wanted > from + piece.length) {
            from = at
            piece = await exactly(handle, at, Math.min(Math.max(wanted, READ_BYTES), size - at))
        }
        return piece.subarray(at - from, at - from + wanted)
    }
}

/** Less only where the file ends. Their buffer is their own. */
export async function exactly(handle: FileHandle, at: number, length: number): Promise<Buffer> {
    const bytes = Buffer.from(new ArrayBuffer(length))
    let filled = 0
    while (filled < length) {
        const { bytesRead } = await handle.read(bytes, filled, length - filled, at + filled)
        if (bytesRead === 0) break
        filled += bytesRead
    }
    return bytes.subarray(0, filled)
}

export async function writeAll(handle: FileHandle, bytes: Uint8Array, at: number): Promise<void> {
    for (let done = 0; done < bytes.length;) {
        done += (await handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten
    }
}

/** So that a new name of a file survives that the power fails. Windows does that by itself. */
export async function syncFolder(path: string): Promise<void> {
    if (platform === "win32") return
    const folder = await open(dirname(path), "r")
    try {
        await folder.sync()
    } finally {
        await folder.close()
    }
}
