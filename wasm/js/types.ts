/** The types of the public API. */

import type { Counter, ImmutableString } from "./counter.js"

/** A key of a map, or an index of a list or text. */
export type Prop = string | number

/**
 * A value that is no object. Whole numbers within ±2^53 are stored as integers, `bigint` beyond
 * that up to 64 bits, all other numbers as 64-bit floats.
 */
export type Scalar = null | boolean | number | bigint | string | Date | Uint8Array

/**
 * A document as it is shown: as it is declared, but all of it readonly, and for each `ImmutableString`
 * there is a plain string.
 */
export type View<T> = T extends Primitive
    ? T
    : T extends ImmutableString
      ? string
      : T extends Date | Uint8Array | Counter
        ? T
        : T extends Tuple
          ? { readonly [K in keyof T]: View<T[K]> }
          : T extends readonly (infer E)[]
            ? readonly View<E>[]
            : T extends object
              ? { readonly [K in keyof T]: View<T[K]> }
              : T

/** Keeps its elements apart. */
type Tuple = readonly [] | readonly [unknown, ...unknown[]]

/** First of all, as a branded one is an object, too. */
type Primitive = string | number | boolean | bigint | symbol | null | undefined

/**
 * What a document can hold: of `T`, where that has a function, a `Map` or the like, `never`; and no
 * `undefined` in a list.
 */
export type Storable<T> = T extends symbol
    ? never
    : T extends Primitive | Date | Uint8Array | Counter | ImmutableString
      ? T
      : T extends Unstorable
        ? never
        : T extends Tuple
          ? { [K in keyof T]: Storable<T[K]> }
          : T extends readonly (infer E)[]
            ? readonly Storable<Exclude<E, undefined>>[]
            : T extends object
              ? { [K in keyof T]: Storable<T[K]> }
              : T

type Unstorable =
    | RegExp
    | Error
    | ((...args: never) => unknown)
    | ReadonlyMap<unknown, unknown>
    | ReadonlySet<unknown>
    | WeakKeyed
    | PromiseLike<unknown>

type WeakKeyed = WeakMap<never, unknown> | WeakSet<never>

/** What takes a value from a document; its argument need not say that all is readonly. */
export type Selector<T, V> = {
    /** Takes it. */
    select(doc: View<T>): V
}["select"]

/** What a function returns that edits: anything but a promise, as it must not be asynchronous. */
export type Synchronous<R> = R extends PromiseLike<unknown> ? never : R

/**
 * `P` if it leads to a text in a document of type `T`, or may lead to one; else what no path is. An
 * `ImmutableString` is no text.
 */
export type TextPath<T, P extends Path> = number extends P["length"]
    ? P
    : [Extract<At<T, P>, string>] extends [never]
      ? unknown extends At<T, P>
          ? P
          : "there is no text at this path"
      : P

/**
 * `P` if it leads to a text in a draft of type `D`, or may lead to one, as where nothing is known of it;
 * else what no path is.
 */
export type DraftPath<D, P extends Path> = object extends D
    ? P
    : unknown extends At<D, P>
      ? P
      : // What is fixed may be assigned as a string, too.
        [Extract<At<D, P>, ImmutableString>] extends [never]
        ? TextPath<D, P>
        : "there is no text at this path"

/** `P` if it leads to something in a document of type `T`, or may lead to something; else what no path is. */
export type PathIn<T, P extends Path> = number extends P["length"]
    ? P
    : [At<T, P>] extends [never]
      ? "there is nothing at this path"
      : P

/** Never, if it leads to nothing. */
type At<T, P extends Path> = unknown extends T
    ? unknown
    : P extends readonly []
      ? T
      : P extends readonly [infer K, ...infer Rest extends Path]
        ? At<Step<NonNullable<T>, K>, Rest>
        : unknown

type Step<T, K> = T extends readonly unknown[]
    ? K extends number
        ? T[number]
        : never
    : K extends keyof T
      ? T[K]
      : `${K & string}` extends keyof T
        ? T[`${K & string}` & keyof T]
        : never

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

/** How safe a document's changes are, and why they are not safer. */
export interface SyncStatus {
    /** The word for it. */
    readonly state: SyncState
    /**
     * For programs: the code with which a relay refused the changes, such as `read_only` or
     * `document_full`, `rejected` or `http` if none lets this client in, or `storage` or `damaged` if the
     * document cannot be read from local storage. Codes stay the same.
     */
    readonly code?: string
    /** For people: why a relay does not take the changes. */
    readonly reason?: string
    /** Why the changes are in memory only: local storage fails, or no engine starts. It is tried again. */
    readonly storageError?: string
}

/** The state of the connection to one relay. */
export interface ConnectionStatus {
    /** Its url, in its shortest spelling. */
    readonly relay: string
    /**
     * `offline` while there is none: it is tried again by itself, first after up to 250 ms, later
     * after up to 30 s, and when there is a network again. `refused`: the relay wants no connection
     * with this client, for the `reason`; it is not asked again before something changed: see
     * `token` of `RepoOptions`.
     */
    readonly state: "connected" | "connecting" | "offline" | "refused"
    /** The relay's words; of one that is `offline`, why there is no token for it, or no socket. */
    readonly reason?: string
}

/** Whether relays are connected, as it is shown by frameworks. */
export interface Connection {
    /** Whether any is. */
    readonly isConnected: boolean
    /** Whether none is because of `goOffline`. */
    readonly isOffline: boolean
    /** Each of them. */
    readonly connections: readonly ConnectionStatus[]
}

/**
 * Why something could not be done.
 *
 * - `unavailable`: no relay that can be reached has the document. It may appear later;
 * - `deleted`: the document was deleted here, or its handle was let go of;
 * - `storage`: local storage cannot be opened, or failed. Of `Repo.flush`: it is tried again;
 * - `damaged`: what is stored of the document, or was given to `Repo.import`, cannot be read;
 * - `quarantined`: changes were taken out of the document, with what was made on top of them, since
 *   together they make none that can be stored;
 * - `removed`: a part of an edit was left out, since somebody had removed what it was in, and emptied
 *   that;
 * - `unsent`: what is kept here has changes that no relay has, so it was not wiped;
 * - `closed`: the repo was shut down;
 * - `failed`: an argument is of no use, or the engine failed. The message tells more.
 */
export type FailureCode =
    "unavailable" | "deleted" | "storage" | "damaged" | "quarantined" | "removed" | "unsent" | "closed" | "failed"

/** A change that was taken out of a document, because together with its past it makes none. */
export interface QuarantinedChange {
    /** Its name. */
    readonly hash: string
    /** What is wrong with it, or with what it depends on. */
    readonly reason: string
    /** The change as Automerge reads it (`decodeChange`, `applyChanges`). */
    readonly change: Uint8Array
}

/**
 * How far a change has come: `local` is in this browser's storage, `durable` on a relay's disk,
 * `replicated` on the disks of all relays.
 */
export type Level = "local" | "durable" | "replicated"

/**
 * One thing that changed. `path` is its place at that moment: patches apply in order, each to what
 * the one before left. Automerge's own patches have the same form.
 *
 * - `put`: a key or an element has another `value`;
 * - `insert`: `values` were inserted into a list before the last index of the path; or blocks into
 *   a text;
 * - `splice`: the characters `value` were inserted into a text, before the last index of the path;
 * - `del`: a key was removed; or `length` elements of a list or UTF-16 code units of a text, one if
 *   it is left out;
 * - `inc`: `value` was added to a counter;
 * - `mark`: ranges of the text were marked;
 * - `unmark`: the mark `name` was taken from the range from `start` up to, without, `end`.
 */
export type Patch =
    | { action: "put"; path: Prop[]; value: PatchValue }
    | { action: "insert"; path: Prop[]; values: PatchValue[] }
    | { action: "splice"; path: Prop[]; value: string }
    | { action: "del"; path: Prop[]; length?: number }
    | { action: "inc"; path: Prop[]; value: number }
    | { action: "mark"; path: Prop[]; marks: Mark[] }
    | { action: "unmark"; path: Prop[]; name: string; start: number; end: number }

/** A value that came. Objects appear empty, and are filled by the patches that follow. */
export type PatchValue = Scalar | Record<string, never> | []

/** A range of a text that is marked: as bold, as a link, ... */
export interface Mark {
    /** What kind of mark it is, as `bold`. */
    name: string
    /** From this UTF-16 code unit on, */
    start: number
    /** up to but without this one. */
    end: number
    /** As it was given to `mark`; never `null`. */
    value: Scalar
}

/** A part of a text, as `DocHandle.spans` gives it. */
export type Span = TextSpan | BlockSpan

/** Characters that have the same marks. */
export interface TextSpan {
    /** Says that it is no block. */
    type: "text"
    /** The characters. */
    value: string
    /** Their marks by name, if there are any. */
    marks?: Record<string, Scalar>
}

/** A block of a text. */
export interface BlockSpan {
    /** Says that it is one. */
    type: "block"
    /** What it holds, as plain data; a counter is its sum. */
    value: Record<string, unknown>
}

/** A change, by whom and when, as the history lists it. */
export interface ChangeInfo {
    /** Its name; as heads, it is the document right after it. */
    readonly hash: Hash
    /** Who made it, in hexadecimal: one editor in one run of a program or browser. */
    readonly actor: string
    /** Counts the changes of this actor in this document, from 1. */
    readonly seq: number
    /** Seconds since 1970; 0 if its author told none. */
    readonly time: number
    /** What its author noted with it. */
    readonly message?: string
    /** In whose name it was made: the option `author` of that repo. Nobody checks it. */
    readonly author?: string
    /** Whether it was made in this browser or process, since the document was opened. */
    readonly isOwn: boolean
    /** The changes that its author knew last. */
    readonly deps: Heads
    /** How many operations it has. */
    readonly operations: number
}

/** Changes that one author made one after the other, as the history groups them. */
export interface ChangeGroup {
    /** In whose name they were made, if in anybody's. */
    readonly author?: string
    /** Whether the last of them was made in this browser or process, since the document was opened. */
    readonly isOwn: boolean
    /** When the last of them was made, in seconds since 1970. */
    readonly time: number
    /** All of them, each after those it depends on. */
    readonly changes: readonly ChangeInfo[]
}

/** What listeners of `change` get. */
export interface ChangeEvent<T> {
    /** The document after the change. */
    readonly doc: View<T>
    /** The document before the change; what did not change is the same object in both. */
    readonly before: View<T>
    /** What changed, in order. */
    readonly patches: readonly Patch[]
    /**
     * Whether this page made the change itself, by whatever it called: what it took back is `local`,
     * too, and is to be shown like what others did.
     */
    readonly source: "local" | "remote"
}

/** What somebody broadcast. */
export interface EphemeralMessage {
    /** Who sent it: a browser or a program, as the protocol names it. Relays do not check it. */
    readonly senderId: string
    /** As it was sent; nothing checks its shape. */
    readonly message: unknown
}

/** What can be taken back, and done again. */
export interface Undoable {
    /** Whether `undo` has something to take back. */
    readonly canUndo: boolean
    /** Whether `redo` has something to do again. */
    readonly canRedo: boolean
}
