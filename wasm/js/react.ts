/**
 * Documents in React, 18 and later. A component that uses a document suspends until it is found,
 * and throws to the nearest error boundary if it is not.
 *
 * Handles are found once per repo and url, however many components use them, and released when none
 * has used them for a while.
 *
 * @module reconverge/react
 */

"use client"

import {
    createContext,
    createElement,
    useCallback,
    useContext,
    useEffect,
    useMemo,
    useRef,
    useState,
    useSyncExternalStore,
    type ReactElement,
    type ReactNode,
} from "react"

import { onConnection } from "./connection.js"
import type { Draft } from "./draft.js"
import type { ChangeOptions, DocHandle, UndoOptions } from "./handle.js"
import { TextBinding, type TextElement, type TextInputOptions } from "./input.js"
import type { Place } from "./place.js"
import { Presence, type PresenceChannel, type PresenceHandle, type PresencePeer } from "./presence.js"
import type { Repo, RepoOptions } from "./repo.js"
import type {
    Connection,
    ConnectionStatus,
    Path,
    PathIn,
    Selector,
    SyncStatus,
    Synchronous,
    TextPath,
    Undoable,
    View,
} from "./types.js"

/** Edits a document; all edits of `fn` are one change. */
export type ChangeDocument<T> = <R>(fn: (draft: Draft<T>) => Synchronous<R>, options?: ChangeOptions) => void

/** What {@link usePresence} returns. */
export interface UsedPresence<S extends object> {
    /** The others, by a name that tells tabs apart. */
    readonly peers: ReadonlyMap<string, PresencePeer<S>>
    /** One's own state. */
    readonly local: S
    /** Changes some of one's own state, and tells the others. */
    readonly set: (changes: Partial<S>) => void
    /** The same for editors, such as `reconvergeText`: so that one is one peer, whatever one does. */
    readonly presence: PresenceHandle<S>
}

/** How long a handle that no component uses is kept: long enough to come back to a page. */
const RELEASE_MS = 30_000

/** How long an error is remembered; a boundary that is reset later tries again. */
const ERROR_MS = 1_000

const RepoContext = createContext<Repo | undefined>(undefined)

/** What goes with {@link RepoProvider}. */
export interface RepoProviderProps extends RepoOptions {
    /** A repo that is open, or will be; without, one is opened with the other options. */
    readonly repo?: Repo | undefined
    /** What is shown until the repo is open. */
    readonly fallback?: ReactNode
    /** What may use the repo. */
    readonly children?: ReactNode
}

/**
 * Gives the components below it a repo: `repo`, or one that it opens in the browser, with the options of
 * {@link Repo.open}, as in `<RepoProvider relay="wss://example.org">`. That is shut down when it is
 * unmounted, and another one opened when the options change, but for functions and storages. If it
 * cannot be opened, this throws to the nearest error boundary.
 */
export function RepoProvider({ children, fallback, ...given }: RepoProviderProps): ReactNode {
    const opened = useOpened("repo" in given ? undefined : given)
    const value = given.repo ?? opened
    return value ? createElement(RepoContext.Provider, { value }, children) : fallback
}

function useOpened(options: RepoOptions | undefined): Repo | undefined {
    const [opened, set] = useState<{ repo?: Repo; error?: unknown }>({})
    const latest = useRef(options)
    latest.current = options
    const key = options && JSON.stringify({ ...options, storage: typeof options.storage })
    useEffect(() => {
        if (key === undefined) return
        let isOver = false
        // By its name: only the app knows which of the package's entries that is.
        const reconverge = import("reconverge" as string) as Promise<typeof import("./repo.js")>
        const opening = reconverge.then(({ Repo }) => Repo.open(latest.current))
        opening.then(
            (repo) => isOver || set({ repo }),
            (error: unknown) => isOver || set({ error }),
        )
        return () => {
            isOver = true
            set({})
            opening.then((repo) => repo.shutdown()).catch(() => {})
        }
    }, [key])
    if (opened.error !== undefined) throw opened.error
    return opened.repo
}

/** The repo of the nearest {@link RepoProvider}. */
export function useRepo(): Repo {
    return needed(useContext(RepoContext))
}

function needed(repo: Repo | undefined): Repo {
    if (!repo) throw new Error("no RepoProvider above this component")
    return repo
}

/** The handle of a document; suspends until it is found. */
export function useHandle<T>(url: string): DocHandle<T> {
    return useFound<T, never>(url)
}

/** What is given, or if that is a url its handle. The same hooks are called for both. */
function useFound<T, G>(given: string | G): DocHandle<T> | G {
    const repo = useContext(RepoContext)
    const entry = typeof given === "string" ? entryOf(needed(repo), given, false) : undefined
    useEntry(entry)
    const stateNow = entry?.stateNow ?? nothing
    const state = useSyncExternalStore<EntryState | undefined>(entry?.subscribe ?? never, stateNow, stateNow)
    if (state === "pending") throw entry?.found
    if (state === "failed") throw entry?.error
    return entry === undefined ? (given as G) : (entry.handle as DocHandle<T>)
}

/** Keeps what is shown. It can be given up between two renders; then there is another one. */
function useEntry(entry: Entry | undefined): void {
    const [, again] = useState(0)
    useEffect(() => {
        if (entry?.state === "gone") again((count) => count + 1)
        return entry?.use()
    }, [entry])
}

/**
 * The document, and what edits it. Renders again when the document changed.
 *
 * A function that takes what is shown takes a `View<T>`, in which fixed strings are plain ones:
 *
 * ```tsx
 * const [plan, change] = useDocument<Plan>(url)
 * const [count] = useDocument(url, (plan: View<Plan>) => plan.tasks.length)
 * ```
 */
export function useDocument<T>(url: string): [doc: View<T>, change: ChangeDocument<T>]
/**
 * What `selector` takes from the document, and what edits it. Renders again only when that changed:
 * it is compared by `isEqual`, which compares the elements of arrays and the values of objects one
 * level deep unless it is given.
 */
export function useDocument<T, V>(
    url: string,
    selector: Selector<T, V>,
    isEqual?: (one: V, other: V) => boolean,
): [value: V, change: ChangeDocument<T>]
export function useDocument<T, V>(
    url: string,
    selector?: Selector<T, V>,
    isEqual?: (one: V, other: V) => boolean,
): [value: View<T> | V, change: ChangeDocument<T>] {
    const handle = useHandle<T>(url)
    const subscribe = useCallback((listener: () => void) => handle.on("change", listener), [handle])
    const doc = useCallback(() => handle.doc(), [handle])
    const select = (selector ?? ((whole: View<T>) => whole)) as (doc: View<T>) => View<T> | V
    const equal = (selector ? (isEqual ?? isShallowlyEqual) : Object.is) as (
        one: View<T> | V,
        other: View<T> | V,
    ) => boolean
    const value = useSelection(subscribe, doc, select, equal)
    const change = useCallback<ChangeDocument<T>>((fn, options) => handle.change(fn, options), [handle])
    return [value, change]
}

/**
 * How safe the changes of a document are, by its url or handle, or without one those of all documents
 * of the repo. With a url it suspends until the document is found.
 */
export function useSyncStatus<T>(document?: string | DocHandle<T>): SyncStatus {
    const repo = useContext(RepoContext)
    const told = useFound<T, DocHandle<T> | Repo>(document ?? needed(repo))
    const subscribe = useCallback(
        (listener: () => void) => ("doc" in told ? told.on("status", listener) : told.on("status", listener)),
        [told],
    )
    const status = useCallback(() => told.status, [told])
    return useSelection(subscribe, status, same, isShallowlyEqual)
}

/** Whether any relay is connected, and the state of the connection to each. */
export function useConnection(): Connection {
    const repo = useRepo()
    const subscribe = useCallback((listener: () => void) => onConnection(repo, listener), [repo])
    const connections = useCallback(() => repo.connections, [repo])
    const now = useSelection<ConnectionStatus[], ConnectionStatus[]>(subscribe, connections, same, isShallowlyEqual)
    const offline = useCallback(() => repo.isOffline, [repo])
    const isOffline = useSyncExternalStore(subscribe, offline, offline)
    const isConnected = now.some(({ state }) => state === "connected")
    return useMemo(() => ({ isConnected, isOffline, connections: now }), [isConnected, isOffline, now])
}

/** What {@link useUndoable} returns. */
export interface UsedUndoable extends Undoable {
    /** As {@link DocHandle.undo}. */
    readonly undo: () => Promise<"all" | "part" | false>
    /** As {@link DocHandle.redo}. */
    readonly redo: () => Promise<"all" | "part" | false>
}

/**
 * What of this handle can be taken back and done again, and what does that; with `in`, only what happened
 * at that path or place.
 *
 * ```tsx
 * const { canUndo, undo } = useUndoable(useHandle(url), { in: ["cards", id] })
 * return <button disabled={!canUndo} onClick={undo}>Undo</button>
 * ```
 */
export function useUndoable<T, const P extends Path>(
    handle: DocHandle<T>,
    options?: UndoOptions<(P & PathIn<T, P>) | Place>,
): UsedUndoable {
    const subscribe = useCallback((listener: () => void) => handle.on("undoable", listener), [handle])
    const within: UndoOptions | undefined = options
    const now = (): Undoable => handle.undoable(within)
    const undoable = useSyncExternalStore(subscribe, now, now)
    return { ...undoable, undo: () => handle.undo(within), redo: () => handle.redo(within) }
}

/**
 * Who else has the document open. All components that ask for one handle share one presence, so
 * that they are one peer to the others; each adds what its initial state has and the others' have
 * not.
 */
export function usePresence<S extends object>(handle: PresenceChannel, initialState: S): UsedPresence<S> {
    const shared = sharedPresence<S>(handle, initialState)
    const initial = useRef(initialState)
    useEffect(() => shared.use(initial.current), [shared])
    return useSyncExternalStore(shared.subscribe, shared.now, shared.now)
}

/**
 * Shows a text in an `<input>` or `<textarea>`, and lets several people edit it: give what this
 * returns as its `ref`, and neither `value` nor `onChange`. It stays with the text that was at `path`
 * when that was rendered. If what is there is no text, but a fixed string, a counter or the like, the
 * element is read-only and the console has a warning. A page that a server renders shows it empty.
 *
 * ```tsx
 * const title = useTextInput(useHandle(url), ["cards", index, "title"])
 * return <input ref={title} />
 * ```
 */
export function useTextInput<T, const P extends Path>(
    handle: DocHandle<T>,
    path: (P & TextPath<T, P>) | Place,
    options?: TextInputOptions,
): (element: TextElement | null) => void {
    const used = useRef<{ element: TextElement; binding: TextBinding } | undefined>(undefined)
    const given = useRef<() => void>(() => {})
    given.current = () => used.current?.binding.bind(handle, path, options)
    useEffect(() => given.current())
    return useCallback((element: TextElement | null) => {
        if (element === (used.current?.element ?? null)) return
        used.current?.binding.end()
        used.current = element ? { element, binding: new TextBinding(element) } : undefined
        given.current()
    }, [])
}

/** A document on its way, or found, or not. */
export interface DocumentState<T> {
    /**
     * `unavailable`: nobody who can be reached has it now; it is waited for. `failed` is for good, for
     * the `error`: its url is none, it was deleted or cannot be read.
     */
    readonly state: "pending" | "unavailable" | "ready" | "failed"
    /** The document, while it is ready. */
    readonly doc: View<T> | undefined
    /** Its handle, while it is ready. */
    readonly handle: DocHandle<T> | undefined
    /** Why it is not there. */
    readonly error: unknown
}

/**
 * A document that may not be there, as a picture in a page that shows all else without it: it neither
 * suspends nor throws.
 */
export function useDocumentState<T>(url: string): DocumentState<T> {
    const entry = entryOf(useRepo(), url, true)
    useEntry(entry)
    const state = useSyncExternalStore(entry.subscribe, entry.stateNow, entry.stateNow)
    const handle = state === "ready" ? (entry.handle as DocHandle<T>) : undefined
    const subscribe = useCallback((listener: () => void) => handle?.on("change", listener) ?? nothing, [handle])
    const now = useCallback(() => handle?.doc(), [handle])
    const doc = useSyncExternalStore(subscribe, now, now)
    const { error } = entry
    return useMemo(() => ({ state, doc, handle, error }) as DocumentState<T>, [state, doc, handle, error])
}

type EntryState = "pending" | "unavailable" | "ready" | "failed" | "gone"

/** A handle on its way, in use, or kept for a while. */
class Entry {
    state: EntryState = "pending"
    handle: DocHandle<unknown> | undefined
    error: unknown
    /** Never rejects: React would report it besides rendering the error. */
    readonly found: Promise<void>
    readonly #listeners = new Set<() => void>()
    readonly #forget: () => void
    #users = 0
    #timer: ReturnType<typeof setTimeout> | undefined
    readonly #ended = new AbortController()

    constructor(repo: Repo, url: string, waits: boolean, forget: () => void) {
        this.#forget = forget
        const { signal } = this.#ended
        const finding = repo.find<unknown>(url, { signal }).catch((error: { code?: string }) => {
            if (!waits || error.code !== "unavailable") throw error
            this.error = error
            this.#become("unavailable")
            this.#waitForUsers()
            return repo.find<unknown>(url, { signal, wait: true })
        })
        this.found = finding.then(
            (handle) => {
                if (this.state === "gone") return handle.release()
                this.handle = handle
                this.error = undefined
                handle.on("delete", () => this.#fail(handle.failure))
                handle.on("close", () => this.#end())
                this.#become("ready")
                this.#waitForUsers()
            },
            (error: unknown) => {
                if (this.state !== "gone") this.#fail(error)
            },
        )
    }

    readonly stateNow = (): Exclude<EntryState, "gone"> => (this.state === "gone" ? "pending" : this.state)

    readonly subscribe = (listener: () => void): (() => void) => {
        this.#listeners.add(listener)
        return () => void this.#listeners.delete(listener)
    }

    /** Keeps the handle until the function that it returns is called. */
    use(): () => void {
        this.#users++
        clearTimeout(this.#timer)
        return () => {
            this.#users--
            this.#waitForUsers()
        }
    }

    #waitForUsers(): void {
        clearTimeout(this.#timer)
        if (this.#users > 0) return
        // Of one that was deleted here, relays may have a copy.
        const errorMs = this.handle ? 0 : ERROR_MS
        const ms = this.state === "failed" ? errorMs : RELEASE_MS
        this.#timer = setTimeout(() => {
            this.#end()
            this.handle?.release()
        }, ms)
    }

    /** The repo may have been shut down, and no timer is to keep its process then. */
    #end(): void {
        clearTimeout(this.#timer)
        // Who uses it shows what it was, or the error.
        if (this.#users > 0) return
        this.#forget()
        this.state = "gone"
        this.#ended.abort()
    }

    #fail(error: unknown): void {
        this.error = error
        this.#become("failed")
        this.#waitForUsers()
    }

    #become(state: EntryState): void {
        this.state = state
        for (const listener of [...this.#listeners]) listener()
    }
}

const entries = new WeakMap<Repo, Map<string, Entry>>()

function entryOf(repo: Repo, url: string, waits: boolean): Entry {
    let ofRepo = entries.get(repo)
    if (!ofRepo) entries.set(repo, (ofRepo = new Map()))
    const key = `${waits} ${url}`
    const known = ofRepo.get(key)
    if (known) return known
    const all = ofRepo
    const entry: Entry = new Entry(repo, url, waits, () => {
        if (all.get(key) === entry) all.delete(key)
    })
    ofRepo.set(key, entry)
    return entry
}

/** One presence for all components that use a handle. It exists while any of them is mounted. */
class SharedPresence<S extends object> implements PresenceHandle<S> {
    readonly #handle: PresenceChannel
    readonly #listeners = new Set<() => void>()
    #presence: Presence<S> | undefined
    #users = 0
    #now: UsedPresence<S>

    constructor(handle: PresenceChannel, local: S) {
        this.#handle = handle
        this.#now = { peers: new Map(), local, set: (changes) => this.set(changes), presence: this }
    }

    get local(): S {
        return this.#now.local
    }

    get peers(): ReadonlyMap<string, PresencePeer<S>> {
        return this.#now.peers
    }

    on(_event: "change", listener: () => void): () => void {
        return this.subscribe(listener)
    }

    readonly now = (): UsedPresence<S> => this.#now

    readonly subscribe = (listener: () => void): (() => void) => {
        this.#listeners.add(listener)
        return () => void this.#listeners.delete(listener)
    }

    use(initialState: S): () => void {
        this.#users++
        if (this.#presence) {
            this.set({ ...initialState, ...this.#now.local })
        } else {
            const state = { ...initialState, ...this.#now.local }
            this.#presence = new Presence(this.#handle, { state })
            this.#presence.on("change", () => this.#changed())
            this.#changed()
        }
        return () => {
            this.#users--
            // Strict mode, and a change of pages, take it up again at once.
            setTimeout(() => {
                if (this.#users > 0) return
                this.#presence?.stop()
                this.#presence = undefined
                // Whoever comes next begins anew.
                if (presences.get(this.#handle) === this) presences.delete(this.#handle)
            })
        }
    }

    set(changes: Partial<S>): void {
        if (this.#presence) this.#presence.set(changes)
        else this.#now = { ...this.#now, local: { ...this.#now.local, ...changes } }
        this.#changed()
    }

    #changed(): void {
        const { peers, local } = this.#presence ?? this.#now
        if (this.#presence && peers === this.#now.peers && local === this.#now.local) return
        this.#now = { ...this.#now, peers, local }
        for (const listener of [...this.#listeners]) listener()
    }
}

const presences = new WeakMap<PresenceChannel, unknown>()

function sharedPresence<S extends object>(handle: PresenceChannel, local: S): SharedPresence<S> {
    const known = presences.get(handle) as SharedPresence<S> | undefined
    if (known) return known
    const shared = new SharedPresence(handle, local)
    presences.set(handle, shared)
    return shared
}

/**
 * What `select` takes from a store's value: the same as before while it is equal, though the value
 * and even `select` may be others by now.
 */
function useSelection<D, V>(
    subscribe: (listener: () => void) => () => void,
    value: () => D,
    select: (value: D) => V,
    isEqual: (one: V, other: V) => boolean,
): V {
    const shown = useRef<{ selected: V } | undefined>(undefined)
    const snapshot = useMemo(() => {
        let last: { value: D; selected: V } | undefined
        return (): V => {
            const now = value()
            if (last && Object.is(last.value, now)) return last.selected
            const next = select(now)
            const before = last ?? shown.current
            const selected = before && isEqual(before.selected, next) ? before.selected : next
            last = { value: now, selected }
            return selected
        }
    }, [value, select, isEqual])
    const selected = useSyncExternalStore(subscribe, snapshot, snapshot)
    useEffect(() => {
        shown.current = { selected }
    }, [selected])
    return selected
}

const same = <V>(value: V): V => value

/** Nothing changes of what is given. */
const never = (): (() => void) => nothing

const nothing = (): undefined => undefined

function isShallowlyEqual(one: unknown, other: unknown): boolean {
    if (Object.is(one, other)) return true
    if (typeof one !== "object" || typeof other !== "object" || !one || !other) return false
    const prototype: unknown = Object.getPrototypeOf(one)
    if (prototype !== Object.getPrototypeOf(other)) return false
    // Of other classes, the fields do not tell all.
    if (prototype !== Object.prototype && prototype !== Array.prototype) return false
    const keys = Object.keys(one)
    if (keys.length !== Object.keys(other).length) return false
    return keys.every((key) => {
        const value = (other as Record<string, unknown>)[key]
        return Object.hasOwn(other, key) && Object.is((one as Record<string, unknown>)[key], value)
    })
}
