// What a repo needs of the place where it keeps its documents.
//
// A superset of automerge-repo's StorageAdapterInterface. Absent: versions, queries and knowledge
// of what the bytes mean.

/** Names a chunk. Keys are ordered by their components, these by UTF-16 code units. */
export type StorageKey = string[]

/** Bytes under their key. */
export interface Chunk {
    /** Where they lie. */
    key: StorageKey
    /** Opaque. */
    data: Uint8Array
}

/** One step of a commit: to write a chunk, to remove one, or to remove many. */
export type StorageWrite =
    | { put: StorageKey; data: Uint8Array }
    | { remove: StorageKey }
    /**
     * All keys that start with the components of this one, itself included. With `from` or `below`,
     * of these only the ones whose next component is at least `from` and less than `below`.
     */
    | { removeRange: StorageKey; from?: string; below?: string }

/**
 * Chunks of bytes under keys of strings.
 *
 * Durability: what writes is on disk when its promise resolves, if there is a disk; it survives
 * that the browser is killed. A promise that rejects means that nothing of the call was written,
 * unless the browser died in between.
 *
 * Ordering: calls take effect in the order in which they were made, whether awaited or not. Several
 * instances on the same data see each other's commits whole.
 *
 * A prefix stands for all keys that start with its components: `["a"]` for `["a"]` and
 * `["a", "b"]`, not for `["ab"]`, and `[]` for all.
 *
 * Bytes that are given must not change before the promise resolves; those that are returned are
 * the caller's.
 *
 * @throws {@link StorageError}, of any method but `close`, as the promise's rejection.
 */
export interface Storage {
    /** The bytes under a key, if there are any. */
    load(key: StorageKey): Promise<Uint8Array | undefined>
    /** Puts bytes under a key, in the place of those that were there. */
    save(key: StorageKey, data: Uint8Array): Promise<void>
    /** Removes a chunk, if it is there. */
    remove(key: StorageKey): Promise<void>
    /** In the order of their keys, and as they were at one moment. */
    loadRange(prefix: StorageKey): Promise<Chunk[]>
    /** Removes all chunks whose keys start with `prefix`. */
    removeRange(prefix: StorageKey): Promise<void>
    /** The keys that `loadRange` would return, without the data. */
    keys(prefix: StorageKey): Promise<StorageKey[]>
    /** All of the writes, one after the other, or none. */
    commit(writes: StorageWrite[]): Promise<void>
    /** Calls that were made before still complete; those made after are refused. */
    close(): void
    /** Called when everything that was kept is gone, and what is written from now on begins anew. */
    onlost?: (() => void) | undefined
}

/**
 * Who must act:
 *
 * - `full`, the user or the app: there is no space left for this site, or on the disk. Free some, then
 *   try again.
 * - `denied`, the user: the browser does not let this site keep data, or the system this process.
 * - `blocked`, the user: another tab holds the database, or another process the file. Close it, then
 *   try again.
 * - `outdated`, the user: a newer version of the app changed the database. Reload the page.
 * - `closed`, the caller: the storage was closed.
 * - `failed`, nobody in particular: the browser or its disk failed. Trying again may help.
 */
export type StorageFailure = "full" | "denied" | "blocked" | "outdated" | "closed" | "failed"

/** A call that was not carried out. `cause` is what the browser said. */
export class StorageError extends Error {
    /** So that it is told apart where `instanceof` is of no use. */
    override readonly name = "StorageError"

    /** For storages of one's own. */
    constructor(
        /** Who must act. */
        readonly failure: StorageFailure,
        message: string,
        options?: ErrorOptions,
    ) {
        super(message, options)
    }
}
