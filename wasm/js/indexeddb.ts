// Storage in the browser's IndexedDB, in a page or in a worker.
//
// A chunk's key is its array of strings, its value the bytes. IndexedDB orders such keys as `Storage`
// asks. There is one object store, unless writers must not wait for each other.

import { StorageError } from "./storage.js"
import type { Chunk, Storage, StorageFailure, StorageKey, StorageWrite } from "./storage.js"

/** Which object stores there are, in this version of the database, and in which one a key is. */
export interface ObjectStores {
    version: number
    names: readonly string[]
    /** By the first component of a key. */
    of(first: string): string
}

const ONE_STORE: ObjectStores = { version: 1, names: ["chunks"], of: () => "chunks" }

/** A database that is being deleted lets nobody in, and says nothing. */
const OPEN_MS_MAX = 15_000

/** Which database it is. */
export interface IndexedDbOptions {
    /** The name of the database within this site; `reconverge` by default. */
    name?: string
    /** How long opening may take before it counts as blocked, in milliseconds; 15,000 by default. */
    openMsMax?: number
    /**
     * What is written survives that the power fails (`strict`, the default), or only that the browser
     * is killed (`relaxed`), which is faster.
     */
    durability?: "strict" | "relaxed"
}

/**
 * Keeps chunks in a database of the browser. Opens it with the first call, and again whenever the
 * browser closed it.
 */
export class IndexedDbStorage implements Storage {
    /**
     * Called when the database was there and is gone: the user cleared the site's data, or the
     * browser did to gain space. It is empty then; write again what must be kept.
     */
    onlost: (() => void) | undefined

    readonly #name: string
    readonly #openMsMax: number
    readonly #durability: "strict" | "relaxed"
    readonly #stores: ObjectStores
    #connection: Promise<IDBDatabase> | undefined
    #opened = false
    #closed = false

    /** Opens nothing yet. */
    constructor(options?: IndexedDbOptions)
    /** @internal */
    constructor(options: IndexedDbOptions | undefined, stores: ObjectStores)
    constructor(
        { name = "reconverge", openMsMax = OPEN_MS_MAX, durability = "strict" }: IndexedDbOptions = {},
        stores: ObjectStores = ONE_STORE,
    ) {
        this.#stores = stores
        this.#name = name
        this.#openMsMax = openMsMax
        this.#durability = durability
    }

    load(key: StorageKey): Promise<Uint8Array | undefined> {
        return this.#run("readonly", this.#named(key), (store) => {
            const data = store(key).get(key)
            return () => data.result
        })
    }

    save(key: StorageKey, data: Uint8Array): Promise<void> {
        return this.commit([{ put: key, data }])
    }

    remove(key: StorageKey): Promise<void> {
        return this.commit([{ remove: key }])
    }

    /** A value that is there and cannot be read any more comes as no bytes: no value that is whole has none. */
    async loadRange(prefix: StorageKey): Promise<Chunk[]> {
        try {
            return await this.#run("readonly", this.#named(prefix), (store) => {
                const keys = store(prefix).getAllKeys(range(prefix))
                const data = store(prefix).getAll(range(prefix))
                return () => (keys.result as StorageKey[]).map((key, i) => ({ key, data: data.result[i] }))
            })
        } catch (error) {
            if (!isUnreadable(error)) throw error
            const keys = await this.keys(prefix)
            return Promise.all(
                keys.map(async (key) => ({ key, data: (await this.#readable(key)) ?? new Uint8Array() })),
            )
        }
    }

    #readable(key: StorageKey): Promise<Uint8Array | undefined> {
        return this.load(key).catch((error: unknown) => {
            if (!isUnreadable(error)) throw error
            return undefined
        })
    }

    removeRange(prefix: StorageKey): Promise<void> {
        return this.commit([{ removeRange: prefix }])
    }

    async keys(prefix: StorageKey): Promise<StorageKey[]> {
        // One after the other would wait for all who write.
        const parts = this.#named(prefix).map((name) =>
            this.#run("readonly", [name], (_, transaction) => {
                const keys = transaction.objectStore(name).getAllKeys(range(prefix))
                // Others would wait for as long as this thread is busy.
                transaction.commit()
                return () => keys.result as StorageKey[]
            }),
        )
        return (await Promise.all(parts)).flat()
    }

    commit(writes: StorageWrite[]): Promise<void> {
        const key = (write: StorageWrite): StorageKey =>
            "put" in write ? write.put : "remove" in write ? write.remove : write.removeRange
        if (writes.length === 0) return Promise.resolve()
        const names = new Set(writes.flatMap((write) => this.#named(key(write))))
        return this.#run("readwrite", [...names], (store, transaction) => {
            for (const write of writes) {
                if ("put" in write) {
                    store(write.put).put(own(write.data), write.put)
                } else if ("remove" in write) {
                    store(write.remove).delete(write.remove)
                } else {
                    const { removeRange, from = "", below } = write
                    // IndexedDB takes no range that is empty by its bounds.
                    if (below !== undefined && from >= below) continue
                    for (const name of this.#named(removeRange))
                        transaction.objectStore(name).delete(range(removeRange, write.from, below))
                }
            }
            // The page may go, or be frozen, before it hears of its requests.
            if (this.#durability === "relaxed") transaction.commit()
            return () => {}
        })
    }

    /** The object stores that have what begins with `prefix`. */
    #named(prefix: StorageKey): readonly string[] {
        // What is no key, IndexedDB refuses.
        const first = (prefix as StorageKey | undefined)?.[0]
        return first === undefined ? this.#stores.names : [this.#stores.of(first)]
    }

    close(): void {
        this.#closed = true
        // Behind the calls that wait for the connection. An open transaction completes first.
        this.#connection?.then(
            (database) => database.close(),
            () => {},
        )
    }

    /** One transaction. `work` makes its requests; what it returns reads their results. */
    async #run<T>(
        mode: IDBTransactionMode,
        names: readonly string[],
        work: (store: (key: StorageKey) => IDBObjectStore, transaction: IDBTransaction) => () => T,
    ): Promise<T> {
        if (this.#closed) throw new StorageError("closed", `the storage ${this.#name} was closed`)
        const connection = (this.#connection ??= this.#open())
        const database = await connection
        // Browsers lose the connection to their database, and do not always say so: the next call opens
        // another one.
        const failed = (cause: unknown): StorageError => {
            const error = this.#error(cause)
            if (error.failure === "failed" && this.#connection === connection) {
                this.#connection = undefined
                database.close()
            }
            return error
        }
        let transaction: IDBTransaction
        try {
            transaction = database.transaction(names, mode, { durability: this.#durability })
        } catch (error) {
            // The connection closed, and the event that says so may still be on its way.
            if ((error as Error).name !== "InvalidStateError") throw failed(error)
            if (this.#connection === connection) this.#connection = undefined
            return this.#run(mode, names, work)
        }
        return new Promise((resolve, reject) => {
            let results: () => T
            let thrown: unknown
            transaction.oncomplete = () => resolve(results())
            transaction.onabort = () => reject(thrown ? this.#error(thrown) : failed(transaction.error))
            try {
                const store = (key: StorageKey): IDBObjectStore => transaction.objectStore(this.#named(key)[0]!)
                results = work(store, transaction)
            } catch (error) {
                thrown = error
                transaction.abort()
            }
        })
    }

    #open(): Promise<IDBDatabase> {
        const opening = new Promise<IDBDatabase>((resolve, reject) => {
            // Some browsers have null in its place.
            if (!indexedDB) throw this.#error(undefined, "denied")
            const request = indexedDB.open(this.#name, this.#stores.version)
            const blocked = () => reject(this.#error(undefined, "blocked"))
            const timer = setTimeout(blocked, this.#openMsMax)
            request.onblocked = blocked
            request.onupgradeneeded = () => {
                const missing = this.#stores.names.filter((name) => !request.result.objectStoreNames.contains(name))
                for (const name of missing) request.result.createObjectStore(name)
                if (this.#opened) this.onlost?.()
            }
            request.onerror = () => {
                clearTimeout(timer)
                reject(this.#error(request.error))
            }
            request.onsuccess = () => {
                clearTimeout(timer)
                const database = request.result
                // Too late, or no longer wanted.
                if (this.#connection !== opening) return database.close()
                this.#opened = true
                const forget = () => {
                    if (this.#connection === opening) this.#connection = undefined
                }
                database.onclose = forget
                // Another page deletes or upgrades the database, and waits for this one.
                database.onversionchange = () => {
                    database.close()
                    forget()
                }
                resolve(database)
            }
        }).catch((error: unknown) => {
            if (this.#connection === opening) this.#connection = undefined
            throw error instanceof StorageError ? error : this.#error(error)
        })
        return opening
    }

    #error(cause: unknown, failure = failureOf(cause)): StorageError {
        return new StorageError(failure, `${this.#name}: ${ADVICE[failure]}`, { cause })
    }
}

const ADVICE: Record<StorageFailure, string> = {
    full: "no space is left for this site: free some, then try again",
    denied: "the browser does not let this site keep data: the user must allow it",
    blocked: "another tab holds the database: close it, then try again",
    outdated: "a newer version of this app changed the database: reload the page",
    closed: "the storage was closed",
    failed: "the browser could not read or write: try again",
}

function failureOf(cause: unknown): StorageFailure {
    switch ((cause as Error | null)?.name) {
        case "QuotaExceededError":
            return "full"
        case "SecurityError":
        case "ReferenceError": // no indexedDB at all
        case "InvalidStateError": // nor in private windows of some browsers
            return "denied"
        case "VersionError":
            return "outdated"
        default:
            return "failed"
    }
}

/** Browsers keep a large value in a file of its own; who removes that, as cleaners do, leaves its key. */
function isUnreadable(error: unknown): boolean {
    return ["NotReadableError", "DataError", "NotFoundError"].includes(
        ((error as Error).cause as Error | null)?.name ?? "",
    )
}

/**
 * The keys that start with `prefix`, itself included; with bounds those whose next component is
 * within them. An array is greater than any string, so it ends the components.
 */
function range(prefix: StorageKey, from?: string, below?: string): IDBKeyRange {
    const bounded = from !== undefined || below !== undefined
    const lower = bounded ? [...prefix, from ?? ""] : prefix
    return IDBKeyRange.bound(lower, [...prefix, below ?? []], false, true)
}

/** A view would be stored with the whole buffer behind it. */
const own = (data: Uint8Array): Uint8Array => (data.byteLength === data.buffer?.byteLength ? data : data.slice())

/** How long the browser keeps this site's data, and how much. */
export interface Persistence {
    /** Whether the browser keeps this site's data until the user clears it. */
    persisted: boolean
    /** What this site takes, as the browser estimates it. */
    usageBytes: number | undefined
    /** What it may take. */
    quotaBytes: number | undefined
}

/**
 * Asks the browser not to clear this site's data when space is short, and says how much space there
 * is. Some browsers ask the user. Workers cannot ask, and learn only what is.
 */
export async function requestPersistence(): Promise<Persistence> {
    // Pages that did not come by https have no storage manager.
    const manager = navigator.storage as Partial<StorageManager> | undefined
    const persisted = (await (manager?.persist ?? manager?.persisted)?.call(manager)) ?? false
    const { usage, quota } = (await manager?.estimate?.()) ?? {}
    return { persisted, usageBytes: usage, quotaBytes: quota }
}
