// Storage in a file, for Node.js.
//
// A log. Behind its head the file has records: one for each commit, or for some that waited
// together. A record is a header, what the writes do (in JSON) and the bytes that they put, each with
// a checksum; only the keys and where their bytes lie are in memory. When more than half of the
// file is of no use, what is of use is written to a new one, which takes its place.
//
// A record is synced before the next one is written, and marked as acknowledged after that. So the
// last one is all that a crash can tear, and what is acknowledged and damaged is told from it.

import { Buffer } from "node:buffer"
import { randomBytes } from "node:crypto"
import { open, realpath, rename, rm, stat, type FileHandle } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { codeOf, exactly, reader, syncFolder, writeAll } from "./file/disk.js"
import { lock, lockOf } from "./file/lock.js"
import {
    acknowledge,
    areWhole,
    bytesAt,
    extentOf,
    HEADER_BYTES,
    indexed,
    isTorn,
    recordAt,
    recordOf,
    step,
    type Step,
} from "./file/records.js"
import { MemoryStorage } from "./memory.js"
import { StorageError } from "./storage.js"
import type { Chunk, Storage, StorageFailure, StorageKey, StorageWrite } from "./storage.js"

const MAGIC = "reconverge file\n"
const VERSION = 1
/** The magic, the version, and a number of the file's own: 4 bytes each behind the first. */
const HEAD_BYTES = 24

/** Commits that wait are written together up to this. */
const RECORD_BYTES_MAX = 4 * 1024 * 1024
/** A file that has less of no use is left alone. */
const WASTE_BYTES_MIN = 1024 * 1024
/** What a record has of a chunk besides its key and its data, at most. */
const STEP_BYTES = 64
interface Task {
    /** What is asked; or else what is written. */
    readonly read?: () => Promise<unknown>
    readonly steps: Step[]
    readonly data: Uint8Array[]
    readonly bytes: number
    resolve(value?: unknown): void
    reject(error: unknown): void
}

interface Opened {
    handle: FileHandle
    /** Where the next record goes. */
    end: number
    salt: number
    /** What is where. */
    index: MemoryStorage
    /** The file is looked at when it is longer than that. */
    compactAt: number
    /** Its name is on disk, too. */
    isNamed: boolean
    readonly path: string
    unlock(): Promise<void>
}

/** Storages of this process that are about to let go of their file. */
const closing = new Map<string, Promise<unknown>>()

/** Keeps chunks in a file, which it locks. Opens it with the first call. */
export class FileStorage implements Storage {
    readonly #path: string
    #opening: Promise<Opened> | undefined
    #tasks: Task[] = []
    #working: Promise<void> | undefined
    #closed: Promise<void> | undefined

    /** Opens nothing yet. */
    constructor(path: string) {
        this.#path = resolve(path)
    }

    load(key: StorageKey): Promise<Uint8Array | undefined> {
        return this.#read(async (file) => {
            const place = await file.index.load(key)
            if (place === undefined) return undefined
            const data = await bytesAt(file.handle, extentOf(place))
            if (data === undefined) throw this.#damaged(extentOf(place).at)
            return data
        })
    }

    save(key: StorageKey, data: Uint8Array): Promise<void> {
        return this.commit([{ put: key, data }])
    }

    remove(key: StorageKey): Promise<void> {
        return this.commit([{ remove: key }])
    }

    /** Data that is damaged comes as no bytes: no value that is whole has none. */
    loadRange(prefix: StorageKey): Promise<Chunk[]> {
        return this.#read(async (file) => {
            const chunks = await file.index.loadRange(prefix)
            for (const chunk of chunks) {
                chunk.data = (await bytesAt(file.handle, extentOf(chunk.data))) ?? new Uint8Array()
            }
            return chunks
        })
    }

    removeRange(prefix: StorageKey): Promise<void> {
        return this.commit([{ removeRange: prefix }])
    }

    keys(prefix: StorageKey): Promise<StorageKey[]> {
        return this.#read((file) => file.index.keys(prefix))
    }

    commit(writes: StorageWrite[]): Promise<void> {
        return new Promise((resolve, reject) => {
            // What is malformed throws here, before anything is written.
            const data = writes.flatMap((write) => ("put" in write ? [write.data] : []))
            const bytes = data.reduce((sum, { length }) => sum + length, 0)
            this.#add({ steps: writes.map(step), data, bytes, resolve: () => resolve(), reject })
        })
    }

    /** Resolves when the file is let go of. */
    close(): Promise<void> {
        return (this.#closed ??= this.#close())
    }

    async #close(): Promise<void> {
        const closed = Promise.resolve(this.#working).then(async () => {
            const file = await this.#opening?.catch(() => undefined)
            await file?.handle.close()
            await file?.unlock()
        })
        closing.set(this.#path, closed)
        try {
            await closed
        } finally {
            if (closing.get(this.#path) === closed) closing.delete(this.#path)
        }
    }

    #read<T>(read: (file: Opened) => Promise<T>): Promise<T> {
        return new Promise((resolve, reject) => {
            const task = { steps: [], data: [], bytes: 0, resolve: resolve as (value: unknown) => void, reject }
            this.#add({ ...task, read: async () => read(await this.#open()) })
        })
    }

    #add(task: Task): void {
        if (this.#closed) return task.reject(new StorageError("closed", `${this.#path} was closed`))
        this.#tasks.push(task)
        this.#working ??= this.#work()
    }

    async #work(): Promise<void> {
        for (let task; (task = this.#tasks.shift());) {
            if (task.read) {
                await task.read().then(task.resolve, (error: unknown) => task.reject(this.#error(error)))
                continue
            }
            const together = [task]
            let { bytes } = task
            for (let next; (next = this.#tasks[0]) && !next.read && (bytes += next.bytes) <= RECORD_BYTES_MAX;) {
                together.push(next)
                this.#tasks.shift()
            }
            try {
                const file = await this.#open()
                await this.#write(file, together)
                // What was wiped is to be nowhere.
                const isWiped = together.some(({ steps }) =>
                    steps.some(([kind, key]) => kind === "range" && key.length === 0),
                )
                if (isWiped) await this.#compact(file, true)
                for (const { resolve } of together) resolve()
                if (file.end > file.compactAt) await this.#compact(file)
            } catch (error) {
                for (const { reject } of together) reject(this.#error(error))
            }
        }
        // At once: what is added from now on begins it again.
        this.#working = undefined
    }

    async #write(file: Opened, tasks: Task[]): Promise<void> {
        const steps = tasks.flatMap(({ steps }) => steps)
        if (steps.length === 0) return
        await this.#checkIsOwn(file)
        if (!file.isNamed) await syncFolder(file.path)
        file.isNamed = true
        const data = tasks.flatMap(({ data }) => data)
        const { record, dataAt } = recordOf(file.salt, file.end, steps, data)
        try {
            await writeAll(file.handle, record, file.end)
            await file.handle.datasync()
        } catch (error) {
            // It may come to be read, though it is told as failed.
            await file.handle.truncate(file.end).catch(() => {})
            throw error
        }
        await acknowledge(file.handle, file.end)
        await file.index.commit(indexed(steps, dataAt))
        file.end += record.length
    }

    /** A process that does not see the lock, as in another container, is seen by what it did. */
    async #checkIsOwn(file: Opened): Promise<void> {
        const [named, own] = await Promise.all([stat(file.path, BIG), file.handle.stat(BIG)])
        const isOwn = named.ino === own.ino && named.dev === own.dev
        if (!isOwn)
            throw new StorageError("blocked", `${this.#path} was replaced by another process: end one of the two`)
        if (own.size === BigInt(file.end)) return
        // Of a write that failed and could not be taken back.
        if (own.size > file.end && !(await recordAt(reader(file.handle, Number(own.size)), file.salt, file.end))) {
            return file.handle.truncate(file.end)
        }
        throw new StorageError("blocked", `${this.#path} was changed by another process: end one of the two`)
    }

    #open(): Promise<Opened> {
        this.#opening ??= this.#openFile().catch((error: unknown) => {
            this.#opening = undefined
            throw this.#error(error)
        })
        return this.#opening
    }

    async #openFile(): Promise<Opened> {
        await closing.get(this.#path)?.catch(() => {})
        // Under whatever name it is opened, it is one file, also if it is not there yet.
        const path = await realpath(this.#path).catch(async () =>
            join(await realpath(dirname(this.#path)), basename(this.#path)),
        )
        const unlock = await lock(lockOf(path))
        if (unlock === undefined) {
            throw new StorageError(
                "blocked",
                `${this.#path}: another process, or another repo of this one, has it open: end that first`,
            )
        }
        let handle: FileHandle | undefined
        try {
            await rm(`${path}.new`, { force: true })
            handle = await open(path, "r+").catch((error: unknown) => {
                if (codeOf(error) !== "ENOENT") throw error
                return open(path, "wx+")
            })
            const file = {
                handle,
                path,
                unlock,
                end: HEAD_BYTES,
                salt: 0,
                index: new MemoryStorage(),
                compactAt: 0,
                isNamed: true,
            }
            await this.#readAll(file)
            await mend(file)
            return file
        } catch (error) {
            await handle?.close()
            await unlock()
            throw error
        }
    }

    /** Fills the index, up to the last record that is whole. */
    async #readAll(file: Opened): Promise<void> {
        const { size } = await file.handle.stat()
        const read = reader(file.handle, size)
        const head = await read(0, Math.min(size, HEAD_BYTES))
        if (!MAGIC.startsWith(text(head.subarray(0, MAGIC.length)))) {
            throw new StorageError(
                "failed",
                `${this.#path} has something else in it, and was not touched: give another path`,
            )
        }
        if (size < HEAD_BYTES) return begin(file)
        const version = head.readUInt32LE(MAGIC.length)
        if (version !== VERSION) {
            throw new StorageError(
                "outdated",
                `${this.#path} has format ${version}: open it with a newer version of this package`,
            )
        }
        file.salt = head.readUInt32LE(MAGIC.length + 4)
        while (file.end < size) {
            const record = await recordAt(read, file.salt, file.end)
            if (record === undefined) {
                if (await isTorn(read, file.salt, file.end, size)) return
                throw this.#damaged(file.end)
            }
            const { steps, dataAt, end, isAcknowledged } = record
            if (!isAcknowledged && end >= size) {
                const isWhole = end === size && (await areWhole(file.handle, steps, dataAt))
                if (!isWhole) return
            }
            if (end > size) throw this.#damaged(size)
            await file.index.commit(indexed(steps, dataAt))
            file.end = end
        }
    }

    /** What is of use goes to a new file. If that fails, the old one goes on. */
    async #compact(file: Opened, always = false): Promise<void> {
        const chunks = await file.index.loadRange([])
        file.compactAt = compactAtOf(chunks)
        if (file.end <= file.compactAt && !always) return
        const path = `${file.path}.new`
        let handle: FileHandle | undefined
        try {
            handle = await open(path, "wx+")
            const next = { ...file, handle, end: HEAD_BYTES, index: new MemoryStorage() }
            await begin(next)
            for (let i = 0; i < chunks.length;) {
                const steps: Step[] = []
                const data: Uint8Array[] = []
                for (let bytes = 0; i < chunks.length && (bytes === 0 || bytes < RECORD_BYTES_MAX); i++) {
                    const { key, data: place } = chunks[i]!
                    const { at, length, crc } = extentOf(place)
                    // What is damaged stays damaged: by its old checksum.
                    steps.push(["put", key, length, crc])
                    data.push(await exactly(file.handle, at, length))
                    bytes += length + HEADER_BYTES
                }
                const { record, dataAt } = recordOf(next.salt, next.end, steps, data)
                await writeAll(handle, record, next.end)
                await acknowledge(handle, next.end)
                await next.index.commit(indexed(steps, dataAt))
                next.end += record.length
            }
            await handle.sync()
            await rename(path, file.path)
            const old = file.handle
            Object.assign(file, { ...next, isNamed: false })
            await old.close()
        } catch {
            // Tried again when the file has doubled.
            file.compactAt = 2 * file.end
            if (file.handle !== handle) {
                await handle?.close().catch(() => {})
                await rm(path, { force: true }).catch(() => {})
            }
        }
    }

    #damaged(at: number): StorageError {
        const advice = "put a copy in its place, or move it away: relays give back what they have"
        return new StorageError("failed", `${this.#path} is damaged at byte ${at}, and was not touched: ${advice}`)
    }

    #error(cause: unknown): StorageError {
        if (cause instanceof StorageError) return cause
        const failure = FAILURES[codeOf(cause) ?? ""] ?? "failed"
        const advice = ADVICE[failure] ?? "it could not be read or written"
        return new StorageError(failure, `${this.#path}: ${advice} (${(cause as Error).message})`, { cause })
    }
}

const BIG = { bigint: true } as const

const FAILURES: Record<string, StorageFailure> = {
    ...{ ENOSPC: "full", EDQUOT: "full", EFBIG: "full" },
    ...{ EACCES: "denied", EPERM: "denied", EROFS: "denied" },
}

const ADVICE: Partial<Record<StorageFailure, string>> = {
    full: "no space is left on its disk: free some, then try again",
    denied: "this process may not read and write it",
}

const text = (bytes: Uint8Array): string => new TextDecoder("latin1").decode(bytes)

/** At which length a file is looked at that has these chunks. */
function compactAtOf(chunks: readonly Chunk[]): number {
    const bytes = chunks.map(({ key, data }) => extentOf(data).length + 3 * key.join().length + STEP_BYTES)
    return 2 * bytes.reduce((sum, length) => sum + length, 0) + WASTE_BYTES_MIN
}

/** Writes the head of a file that has nothing. */
async function begin(file: Opened): Promise<void> {
    const head = Buffer.alloc(HEAD_BYTES)
    head.write(MAGIC, "latin1")
    head.writeUInt32LE(VERSION, MAGIC.length)
    file.salt = randomBytes(4).readUInt32LE(0)
    head.writeUInt32LE(file.salt, MAGIC.length + 4)
    await writeAll(file.handle, head, 0)
}

/** Takes away what a crash tore. What is read now may not be on disk yet. */
async function mend(file: Opened): Promise<void> {
    const { size } = await file.handle.stat()
    if (size > file.end) await file.handle.truncate(file.end)
    await file.handle.sync()
    await syncFolder(file.path)
    file.compactAt = compactAtOf(await file.index.loadRange([]))
}
