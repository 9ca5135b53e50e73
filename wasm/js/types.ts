/** The types of the public API. */

/** A key of a map, or an index of a list or text. */
export type Prop = string | number

/**
 * A value that is no object. Whole numbers within ±2^53 are stored as integers, `bigint` beyond
 * that up to 64 bits, all other numbers as 64-bit floats.
 */
export type Scalar = null | boolean | number | bigint | string | Date | Uint8Array

/** What a mark's ends do when text is inserted there. */
export type Expand = "none" | "before" | "after" | "both"

/** The name of a document, as users pass it on: `automerge:` and base58check. */
export type AutomergeUrl = `automerge:${string}`

/** The hash of a change, in hexadecimal. */
export type Hash = string

/** The changes that no other change depends on; they name a state of a document. */
export type Heads = readonly Hash[]

/** A place in a text or list that stays with its element while others edit. */
export type Cursor = string

/** Where something lies in a document, from its root. */
export type Path = readonly Prop[]

/**
 * How safe a document's changes are.
 *
 * - `saved`: all of them are on the relay's disk;
 * - `saving`: a relay is connected and has not acknowledged all of them yet;
 * - `offline`: no relay is connected; they are kept in local storage;
 * - `refused`: no relay takes them, for the `reason`.
 */
export type SyncState = "saved" | "saving" | "offline" | "refused"

export interface SyncStatus {
    readonly state: SyncState
    /** Why a relay does not take the changes. */
    readonly reason?: string
    /** Why the changes are in memory only: local storage fails. It is tried again. */
    readonly storageError?: string
}

/** The state of the connection to one relay. */
export interface ConnectionStatus {
    /** Its url, as it was given. */
    readonly relay: string
    /**
     * `offline` while there is none: it is tried again by itself. `refused`: the relay does not
     * want this client, for the `reason`; it is tried again, rarely.
     */
    readonly state: "connected" | "connecting" | "offline" | "refused"
    readonly reason?: string
}

/**
 * Why something could not be done.
 *
 * - `unavailable`: no relay that can be reached has the document. It may appear later;
 * - `deleted`: the document was deleted here, or its handle was let go of;
 * - `storage`: local storage cannot be opened, or failed. Of `Repo.flush`: it is tried again;
 * - `damaged`: what is stored of the document, or was given to `Repo.import`, cannot be read;
 * - `closed`: the repo was shut down;
 * - `failed`: an argument is of no use, or the engine failed. The message tells more.
 */
export type FailureCode = "unavailable" | "deleted" | "storage" | "damaged" | "closed" | "failed"

/**
 * How far a change has come: `local` is in this browser's storage, `durable` on a relay's disk,
 * `replicated` on the disks of all relays.
 */
export type Level = "local" | "durable" | "replicated"

/** One thing that changed, with its place at that moment. They apply in order. */
export type Patch =
    | { action: "put"; path: Prop[]; value: PatchValue }
    | { action: "insert"; path: Prop[]; values: PatchValue[] }
    | { action: "splice"; path: Prop[]; value: string }
    | { action: "del"; path: Prop[]; length?: number }
    | { action: "inc"; path: Prop[]; value: number }
    | { action: "mark"; path: Prop[]; marks: Mark[] }
    | { action: "unmark"; path: Prop[]; name: string; start: number; end: number }

/** Objects appear empty, and are filled by the patches that follow. */
export type PatchValue = Scalar | Record<string, never> | []

export interface Mark {
    name: string
    /** From this UTF-16 code unit on, */
    start: number
    /** up to but without this one. */
    end: number
    value: Scalar
}

/** The change, by whom and when, as the history lists it. */
export interface ChangeInfo {
    readonly hash: Hash
    readonly actor: string
    readonly seq: number
    /** Seconds since 1970; 0 if its author told none. */
    readonly time: number
    readonly message?: string
    readonly deps: Heads
    /** How many operations it has. */
    readonly operations: number
}

/** What listeners of `change` get. */
export interface ChangeEvent<T> {
    readonly doc: T
    readonly before: T
    readonly patches: readonly Patch[]
    /** Whether this page made the change itself. */
    readonly source: "local" | "remote"
}
