/// <reference lib="esnext.disposable" preserve="true" />

import { change, fill } from "./draft.js"
import { Emitter } from "./emitter.js"
import { DocHandle, type HandleOwner, seconds } from "./handle.js"
import { words, type HostMessage, type Opened } from "./host/protocol.js"
import { IndexedDbStorage } from "./indexeddb.js"
import { JOURNAL, Journal } from "./journal.js"
import { Link, RepoError, type Said } from "./link.js"
import { hex, uuid } from "./names.js"
import type { Platform } from "./platform.js"
import type { Storage, StorageError } from "./storage.js"
import { isSame } from "./tally.js"
import { Tree } from "./tree.js"
import type { Draft } from "./draft.js"
import { isBytes, isPlain } from "./kinds.js"
import type { AutomergeUrl, ConnectionStatus, Storable, SyncStatus } from "./types.js"

/** How a repo is opened. All of it may be left out. */
export interface RepoOptions {
    /**
     * The WebSocket url of a relay, or of several: every document goes to each of them. Without one,
     * documents stay in this browser. Tabs with the same `name` are connected to the relays of all of
     * them: those that only one of them wants as long as it is open.
     */
    relay?: string | readonly string[]
    /**
     * Shown to every relay of this tab, as the query parameter `token`: the token, or a function that
     * gives one, which is called in this tab each time when a connection is about to be made, so that it
     * is never one that expired. If it throws, that is the `reason` of a connection that is `offline`, and
     * it is called again later. An empty token is none.
     *
     * Of several tabs that give one for the same relay, the newest does; if the relay refused that, the
     * next. A relay that refused is tried again when a tab is opened, and when a function gives another
     * token, for which it is asked after 1 s at first, later every 60 s.
     */
    token?: string | Token
    /**
     * Where documents are kept: `"indexeddb"`, which all tabs of the origin share, is the default in
     * browsers; `"memory"` elsewhere. In Node.js also a file at a path, which is made if it is not
     * there, and which one repo has at a time. Or a storage of your own, which only this repo may use;
     * the engine then runs in the caller's thread.
     */
    storage?: "indexeddb" | "memory" | FileOptions | Storage
    /** Tells several databases of one origin apart; `reconverge` by default. Tabs with the same name share one. */
    name?: string
    /**
     * This tab's name among peers, of 1 to 256 bytes. No two may have the same at a time. All tabs of a
     * browser go by the name of the one that runs the engine.
     */
    peerId?: string
    /**
     * In whose name this tab edits: a name or an id of at most 256 bytes, which is in the document for
     * good and which `history` tells. It is as trustworthy as those who edit.
     */
    author?: string
    /** Whether the engine may run in a Worker; `true` where there are Workers. */
    worker?: boolean
}

/** Gives the token for a relay. */
export type Token = (relay: string) => string | Promise<string>

/** Which file keeps documents. */
export interface FileOptions {
    /** Its path; its folder must be there. */
    file: string
}

/** How a document is looked for. */
export interface FindOptions {
    /**
     * Whether to wait for one that nobody has now: it is asked for again whenever a relay is connected,
     * and after 5 s, later every 60 s.
     */
    wait?: boolean
    /** Ends it. */
    signal?: AbortSignal
}

/** What is wiped. */
export interface WipeOptions {
    /** Whether changes may be lost that no relay has. */
    evenUnsent?: boolean
    /** Ends the waiting. */
    signal?: AbortSignal
}

/** A document that could not be fetched. */
export interface Unfetched {
    /** As it was given. */
    readonly url: string
    /** Why. */
    readonly error: RepoError
}

/**
 * A document came or went, in this tab or another one. None is named when several may have, as after a
 * wipe, or when another tab took over: list them again.
 */
export interface DocumentsEvent {
    /** It was made, imported, or found at a relay, and is stored next. */
    readonly added?: AutomergeUrl
    /** It was deleted. */
    readonly deleted?: AutomergeUrl
}

/** What a repo tells. */
export interface RepoEvents {
    /** A connection to a relay changed. */
    connection: ConnectionStatus
    /** {@link Repo.isOffline} changed. */
    offline: boolean
    /** All documents together have another status than before. */
    status: SyncStatus
    /** There are other {@link Repo.documents} than before. */
    documents: DocumentsEvent
    /**
     * Something went wrong that concerns no call: local storage failed, the engine started anew, or
     * cannot be started by this tab, whose turn it is; it tries again.
     */
    problem: Error
}

const OPTIONS = ["relay", "token", "name", "storage", "peerId", "author", "worker"]

/** A function that takes longer to give a token is asked again at the next attempt. */
const TOKEN_MS_MAX = 15_000

/** One that takes longer does not keep the repo from being shut down. */
const WIPE_MS_MAX = 10_000

/** So many documents are fetched at once: each is in memory meanwhile. */
const FETCHED_AT_ONCE = 8

const AGAIN_MS = 5_000
const AGAIN_MS_MAX = 60_000

let platform: Platform | undefined

/** @internal Said once, by the entry that was imported. */
export function usePlatform(entry: Platform): void {
    platform ??= entry
}

/**
 * The documents of this browser or process.
 *
 * ```js
 * const repo = await Repo.open({ relay: "ws://127.0.0.1:3030" })
 * const list = await repo.create({ items: [] })
 * list.change(draft => draft.items.push("milk"))
 * ```
 */
export class Repo {
    /** This tab's name among peers, by which all tabs of the browser go while it runs the engine. */
    readonly peerId: string
    #events = new Emitter<RepoEvents>(["connection", "offline", "status", "documents", "problem"])
    #handles = new Map<string, { handle: DocHandle<unknown>; uses: number }>()
    /** Let go of, but for what they edited: it is not stored yet. */
    #leaving = new Map<string, DocHandle<unknown>>()
    #connections = new Map<string, ConnectionStatus>()
    /** Of all documents, as the host told it, */
    #sum: SyncStatus = { state: "offline" }
    /** those that this page has open and edited, which knows of that before, */
    #unsaved = new Set<string>()
    /** and both together. */
    #status: SyncStatus = this.#sum
    /** What ends the pauses of those who wait for a document to appear. */
    #pauses = new Set<() => void>()
    #online = true
    /** Wipes that were asked for, until they are done. */
    #wiping: Promise<unknown> | undefined
    #token: RepoOptions["token"]
    /** Each ends the wait for a token that the function was asked for, so that it is asked again. */
    #asked = new Set<() => void>()
    #link: Link
    #journal: Journal | undefined
    #owner: HandleOwner
    #unlisten: () => void = () => {}
    #file: ReturnType<NonNullable<Platform["file"]>> | undefined
    /** Documents were to be kept and cannot be. */
    #unkept: RepoError | undefined

    /**
     * Opens the documents that are kept here, and starts to sync. Relays need not be there.
     *
     * @throws RepoError if the storage cannot be opened, or an option is of no use.
     */
    static async open(options: RepoOptions = {}): Promise<Repo> {
        if (platform === undefined) throw new Error("import from one of the package's entries")
        if (!isPlain(options)) throw new RepoError("failed", "the options of a repo are a plain object")
        let repo: Repo | undefined
        try {
            repo = new Repo(platform, options)
            await repo.#open()
            return repo
        } catch (error) {
            const { name, storage } = options
            const why = repo !== undefined && repo.#link.isShared ? await whyDenied(name) : undefined
            if (why !== undefined && storage === undefined) {
                const other = new Repo(platform, { ...options, storage: "memory" })
                other.#unkept = unkept(why)
                await other.#open()
                return other
            }
            if (error instanceof RepoError) throw error
            throw new RepoError(repo ? "storage" : "failed", words(error))
        }
    }

    /** What is not the platform's own. A file is this repo's to close. */
    #storage(platform: Platform, given: RepoOptions["storage"]): Storage | undefined {
        if (given === undefined || given === "memory" || given === "indexeddb") return undefined
        if (typeof given !== "object" || given === null || !("file" in given || "commit" in given)) {
            throw new RepoError("failed", 'a storage is "indexeddb", "memory", { file } or one of your own')
        }
        if (!("file" in given)) return given
        if (typeof given.file !== "string") throw new RepoError("failed", "the path of the storage's file is no string")
        if (!platform.file) throw new RepoError("storage", "documents can be kept in a file in Node.js only")
        return (this.#file = platform.file(given.file))
    }

    async #open(): Promise<void> {
        const journal = this.#link.isShared ? Journal.open(this.#link.name, this.#link.page) : undefined
        try {
            await this.#link.open()
            this.#journal = await journal
        } catch (error) {
            void journal?.then((open) => open?.close())
            this.#unlisten()
            await this.#link.close().catch(() => {})
            await this.#file?.close()
            throw error
        }
    }

    private constructor(platform: Platform, options: RepoOptions) {
        const { relay = [], token, name = "reconverge", author, worker = true } = options
        for (const option of Object.keys(options)) {
            if (!OPTIONS.includes(option)) {
                throw new RepoError("failed", `there is no option "${option}"; there are ${OPTIONS.join(", ")}`)
            }
        }
        this.peerId = checkedName("peerId", options.peerId ?? `reconverge-${hex()}`)
        const given = Array.isArray(relay) ? (relay as readonly string[]) : [relay as string]
        const relays = [...new Set(given.map(checked))]
        if (typeof name !== "string") throw new RepoError("failed", 'the option "name" is a string')
        if (!["undefined", "string", "function"].includes(typeof token)) {
            throw new RepoError("failed", 'the option "token" is a string or a function')
        }
        this.#token = token
        if (author !== undefined) checkedName("author", author)
        if (name.endsWith(JOURNAL)) throw new RepoError("failed", `a name must not end with ${JOURNAL}`)
        const own = this.#storage(platform, options.storage)
        const why = own === undefined && options.storage !== "memory" ? whyUnable() : undefined
        const keeps = own !== undefined || (options.storage !== "memory" && why === undefined)
        if (options.storage === "indexeddb" && why !== undefined) {
            throw new RepoError(
                "storage",
                `documents can be kept only where there are IndexedDB, Web Locks and BroadcastChannel: in browsers, on https or localhost (${why})`,
            )
        }
        // Elsewhere nobody expects that they are kept.
        if (why !== undefined && platform.workerSource !== undefined) this.#unkept = unkept(why)
        const shown = typeof token === "function" || token
        const wishes = { relays, at: Date.now(), ...(shown && { token: shown }) }
        const hostOptions = { ...wishes, name, peerId: this.peerId, keeps }
        const { workerSource: _, ...here } = platform
        this.#link = new Link(worker ? platform : here, hostOptions, own, {
            message: (message) => this.#message(message),
            connected: (before) => this.#connected(before),
            wiped: () => this.#wiped(),
            trapped: (document, message) => this.#trapped(document, message),
            unserved: (error) => this.#unserved(error),
            failed: (error) => this.#events.emit("problem", error),
        })
        const repo = this
        this.#owner = {
            link: this.#link,
            author,
            get isConnected() {
                return repo.isConnected
            },
            opened: (opened) => this.#opened(opened),
            statusChanged: (document, { state }) => {
                if (state === "saved" || state === "refused") this.#unsaved.delete(document)
                else this.#unsaved.add(document)
                this.#updateStatus()
            },
            release: (handle) => this.#release(handle),
            get journal() {
                return repo.#journal
            },
        }
        this.#unlisten = listen(
            this.#link,
            () => this.#askAnew(),
            () => this.#suspend(),
        )
    }

    /**
     * Makes an empty document. What it is to hold comes by `change`, so nothing of `T` is there for
     * certain: all of its keys may be missing. Give it contents for a handle of the whole `T`.
     */
    create<T extends object = Record<string, unknown>>(): Promise<DocHandle<Partial<T>>>
    /**
     * Makes a document, which begins with `initial`. It is in local storage when this resolves; if
     * that fails, it is in memory, and its status has the error.
     *
     * @throws TypeError for what a document cannot hold, with its path.
     */
    create<T extends object>(initial: T & Storable<T>): Promise<DocHandle<T>>
    async create<T extends object>(initial?: T): Promise<DocHandle<T>> {
        if (initial !== undefined && !isPlain(initial)) {
            throw new RepoError("failed", "a document begins as a plain object")
        }
        const tree = new Tree()
        let objects = 0
        const begin = (draft: Draft<T>): void => fill(draft as object, initial ?? {})
        const operations = change<T>(tree, begin, () => `~${++objects}`)
        const then = (opened: Opened): DocHandle<T> => this.#opened<T>(opened)
        return this.#link.call("create", [uuid(), operations, seconds(), this.#owner.author], { then })
    }

    /**
     * Finds a document by its url: here, or else at the relays. Waits until what some relay has of
     * it is here.
     *
     * @throws RepoError with code `unavailable` when no relay that can be reached has it, or none can be
     * reached, which the message tells, and `isConnected`; unless it is to `wait` until it appears. The
     * signal's reason when it is aborted.
     */
    async find<T = unknown>(url: string, options: FindOptions = {}): Promise<DocHandle<T>> {
        const { wait, signal } = options
        for (let ms = AGAIN_MS; ; ms = Math.min(ms * 2, AGAIN_MS_MAX)) {
            try {
                return await this.#find<T>(url, signal)
            } catch (error) {
                if ((error as RepoError).code !== "unavailable") throw error
                if (!wait) throw this.#unavailable(url)
            }
            await this.#pause(ms, signal)
        }
    }

    #unavailable(url: string): RepoError {
        const nowhere = this.connections.length > 0 ? "no relay can be reached" : "there is no relay"
        const why = this.isConnected ? "no relay that is connected has it" : nowhere
        return new RepoError("unavailable", `${url} is not here, and ${why}`)
    }

    /** Until a relay is connected, or so long. */
    #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
        return new Promise((resolve) => {
            const done = (): void => {
                clearTimeout(timer)
                off()
                signal?.removeEventListener("abort", done)
                this.#pauses.delete(done)
                resolve()
            }
            const timer = setTimeout(done, ms)
            const off = this.on("connection", ({ state }) => state === "connected" && done())
            signal?.addEventListener("abort", done)
            this.#pauses.add(done)
        })
    }

    async #find<T>(url: string, signal: AbortSignal | undefined): Promise<DocHandle<T>> {
        const document = named(url).replace(/^automerge:/, "")
        const open = this.#handles.get(document)
        if (open) {
            open.uses += 1
            return open.handle as DocHandle<T>
        }
        const leaving = this.#leaving.get(document)
        if (leaving?.isNeeded && !leaving.isLost) {
            this.#leaving.delete(document)
            return this.#use<T>(DocHandle.again<T>(leaving))
        }
        const then = (opened?: Opened): DocHandle<T> | Promise<DocHandle<T>> => {
            // Another call was first; what it found may be released by now.
            if (!opened && !signal?.aborted) return this.#find(url, signal)
            const handle = opened && this.#opened<T>(opened)
            if (signal?.aborted) handle?.release()
            return handle as DocHandle<T>
        }
        return this.#link.call("open", [url], { signal, then })
    }

    /** Makes a new document, with another url, of a saved one, with its history, in any form that Automerge saves. */
    async import<T = unknown>(bytes: Uint8Array): Promise<DocHandle<T>> {
        if (!isBytes(bytes)) throw new RepoError("failed", "import takes the bytes of a document, as a Uint8Array")
        const then = (opened: Opened): DocHandle<T> => this.#opened<T>(opened)
        return this.#link.call("import", [uuid(), bytes, seconds()], { then })
    }

    /** The whole document with its history, in the form that Automerge saves. */
    async export(url: string): Promise<Uint8Array> {
        return this.#link.call("export", [named(url)])
    }

    /**
     * The documents that are kept in this browser or process, by their urls: those that were made,
     * imported or found here and not deleted. Whoever listens to the event `documents` before misses none
     * that comes later.
     *
     * A repo is one space of documents: all of them go to all of its relays. Who has several opens a repo
     * for each, by another `name`.
     */
    async documents(): Promise<AutomergeUrl[]> {
        return (await this.#link.call("documents", [])).map((document): AutomergeUrl => `automerge:${document}`)
    }

    /** Removes a document from this browser. Relays and other peers keep it. */
    async delete(url: string): Promise<void> {
        return this.#link.call("delete", [named(url)])
    }

    /**
     * Fetches documents and keeps them here, without opening them, for when there is no network. Resolves
     * when each is in local storage or cannot be had; gives those that cannot, with the reasons that
     * {@link find} would have given; after a wipe all that were not stored before, with code `deleted`.
     */
    async prefetch(urls: readonly string[], { signal }: { signal?: AbortSignal } = {}): Promise<Unfetched[]> {
        if (!Array.isArray(urls)) throw new RepoError("failed", "prefetch takes an array of urls")
        const left = [...new Set(urls)]
        const { wiped } = this.#link
        const unfetched: Unfetched[] = []
        const fetch = async (): Promise<void> => {
            while (left.length > 0) {
                const url = left.shift()!
                try {
                    // It was for whoever was here before.
                    if (this.#link.wiped !== wiped) throw new RepoError("deleted", "all was wiped")
                    named(url)
                    await this.#link.call("fetch", [url], { signal })
                } catch (error) {
                    const { code } = error as RepoError
                    if (signal?.aborted || code === "closed") throw error
                    unfetched.push({
                        url,
                        error: code === "unavailable" ? this.#unavailable(url) : (error as RepoError),
                    })
                }
            }
        }
        await Promise.all(Array.from({ length: FETCHED_AT_ONCE }, fetch))
        return unfetched
    }

    /**
     * Removes all that is kept under this repo's name, as at sign-out: all documents with what can be
     * taken back, in memory and in storage, for all tabs, whose handles are closed (`delete`). Relays and
     * other peers keep theirs. The repo can be used on, and is empty.
     *
     * What is being sent is waited for, for 5 s at most. If some changes are on no relay's disk then,
     * nothing is removed, unless it is to be wiped `evenUnsent`. Gives the documents that had such changes.
     * An edit that is made in the very moment is lost, and its handle tells an `error` with code `deleted`.
     *
     * @throws RepoError with code `unsent`, whose `urls` are those documents; with code `storage` if
     * local storage fails.
     */
    async wipe(options: WipeOptions = {}): Promise<AutomergeUrl[]> {
        const { evenUnsent = false, signal } = options
        const wiping = this.#link.call("wipe", [evenUnsent === true], { signal })
        this.#wiping = Promise.allSettled([this.#wiping, wiping])
        const { unsent, isWiped } = await wiping
        const urls = unsent.map((document): AutomergeUrl => `automerge:${document}`)
        if (isWiped) return urls
        throw new RepoError("unsent", `nothing was wiped: no relay has all of ${urls.join(", ")}`, urls)
    }

    /**
     * Waits until everything that was changed and received so far is in local storage.
     *
     * @throws RepoError with code `storage` while local storage fails; it is tried again.
     */
    flush(): Promise<void> {
        return this.#link.call("flush", [])
    }

    /**
     * Ends the repo: stores what is not stored, and closes all connections that no other tab needs.
     * Its handles are of no further use, and calls that wait are rejected with code `closed`.
     */
    async shutdown(): Promise<void> {
        for (const done of [...this.#pauses]) done()
        this.#unlisten()
        this.#askAnew()
        // Whoever is present says goodbye.
        for (const { handle } of this.#handles.values()) handle.close("closed")
        // What is wiped all the same is to be told so.
        let timer: ReturnType<typeof setTimeout> | undefined
        await Promise.race([this.#wiping, new Promise((late) => (timer = setTimeout(late, WIPE_MS_MAX)))])
        clearTimeout(timer)
        await this.#link.close()
        await this.#file?.close()
        this.#journal?.close()
        this.#handles.clear()
        this.#events.close()
    }

    /** {@link shutdown}, for `await using`. */
    [Symbol.asyncDispose](): Promise<void> {
        return this.shutdown()
    }

    /** @internal Vue's `reactive` leaves it as it is: private fields are not there for its proxies. */
    get __v_skip(): true {
        return true
    }

    /**
     * How safe all documents of this browser or process are, opened or not: `saving` while any is, else
     * `offline` or `refused` while any is, else `saved`. The event `status` tells of changes. Just after
     * the repo was opened it is `offline`, until it is known which documents some relay lacks.
     */
    get status(): SyncStatus {
        return this.#status
    }

    /** Whether any relay is connected. */
    get isConnected(): boolean {
        return this.connections.some(({ state }) => state === "connected")
    }

    /** The state of the connection to each relay. */
    get connections(): ConnectionStatus[] {
        return [...this.#connections.values()]
    }

    /**
     * Whether there are no connections because of {@link goOffline}, which may have been called in another
     * tab; else there is no network or no relay. The event `offline` tells of changes.
     */
    get isOffline(): boolean {
        return !this.#online
    }

    /**
     * Cuts the connections of this origin to its relays, until {@link goOnline}, also for tabs that are
     * opened later, for as long as one of them is open.
     */
    goOffline(): void {
        this.#setOnline(false)
    }

    /** Connects again after {@link goOffline}. */
    goOnline(): void {
        this.#setOnline(true)
    }

    /** Calls `listener` from now on, after the event. Gives what ends that. */
    on<K extends keyof RepoEvents>(event: K, listener: (value: RepoEvents[K]) => void): () => void {
        const off = this.#events.on(event, listener)
        // It is so since before anybody could listen.
        if (event === "problem" && this.#unkept)
            this.#events.tell("problem", listener as (problem: Error) => void, this.#unkept)
        return off
    }

    /** Ends what {@link on} began. */
    off<K extends keyof RepoEvents>(event: K, listener: (value: RepoEvents[K]) => void): void {
        this.#events.off(event, listener)
    }

    #setOnline(online: boolean): void {
        this.#isSet(online)
        this.#askAnew()
        this.#link.call("online", [online]).catch(() => {})
    }

    #isSet(online: boolean): void {
        if (online === this.#online) return
        this.#online = online
        this.#events.emit("offline", !online)
    }

    /** The browser keeps this page, maybe to come back to it. */
    #suspend(): void {
        for (const { handle } of [...this.#handles.values()]) handle.suspended()
        this.#link.suspend()
    }

    /** What was asked of a network that is gone may never be answered. */
    #askAnew(): void {
        for (const late of [...this.#asked]) late()
    }

    #opened<T>(opened: Opened): DocHandle<T> {
        const open = this.#handles.get(opened.document)
        if (open) {
            // The host did not have it when it was to go on with it.
            open.uses += 1
            open.handle.resume()
            return open.handle as DocHandle<T>
        }
        const leaving = this.#leaving.get(opened.document)
        if (leaving === undefined) return this.#use(DocHandle.opened<T>(this.#owner, opened))
        // The same, and its edits are in memory still.
        this.#leaving.delete(opened.document)
        const again = DocHandle.again<T>(leaving)
        again.resume()
        return this.#use(again)
    }

    #use<T>(handle: DocHandle<T>): DocHandle<T> {
        this.#handles.set(handle.documentId, { handle: handle as DocHandle<unknown>, uses: 1 })
        return handle
    }

    #release(handle: DocHandle<unknown>): void {
        const { documentId: document } = handle
        const open = this.#handles.get(document)
        if (open?.handle !== handle) return
        open.uses -= 1
        if (open.uses > 0) return
        this.#handles.delete(document)
        this.#unsaved.delete(document)
        handle.close()
        this.#leaving.set(document, handle)
        if (!handle.isNeeded) this.#left(handle)
    }

    /** A next host need not hear of it any more. */
    #left(handle: DocHandle<unknown>): void {
        const { documentId: document } = handle
        if (this.#leaving.get(document) !== handle) return
        this.#leaving.delete(document)
        // Nothing of it is kept when the host lets go of it.
        this.#journal?.flush()
        this.#link.post({ type: "release", document })
    }

    #message(message: HostMessage): void {
        if (message.type === "connection") {
            this.#connection(message.connection)
        } else if (message.type === "relays") {
            this.#isSet(message.online)
            const relays = message.connections.map(({ relay }) => relay)
            for (const relay of [...this.#connections.keys()]) {
                if (!relays.includes(relay)) this.#connection({ relay, state: "offline" }, true)
            }
            message.connections.forEach((connection) => this.#connection(connection))
        } else if (message.type === "sum") {
            this.#sum = message.status
            this.#updateStatus()
        } else if (message.type === "listed") {
            this.#events.emit("documents", { [message.isHere ? "added" : "deleted"]: `automerge:${message.document}` })
        } else if (message.type === "ask") {
            void this.#give(message.relay)
        } else if (message.type === "problem") {
            this.#events.emit("problem", new RepoError("storage", message.message))
        } else if ("document" in message) {
            const { document } = message
            const handle = this.#handles.get(document)?.handle ?? this.#leaving.get(document)
            handle?.handle(message)
            if (message.type === "deleted") {
                this.#handles.delete(document)
                this.#leaving.delete(document)
                this.#unsaved.delete(document)
                this.#updateStatus()
                this.#journal?.flush()
            }
            if (handle?.isNeeded === false) this.#left(handle)
        }
    }

    #updateStatus(): void {
        let status = this.#sum
        // As a handle does, when it was edited.
        if (this.#unsaved.size > 0 && status.state !== "saving") {
            status = { ...status, state: this.isConnected ? "saving" : "offline" }
        }
        if (isSame(status, this.#status)) return
        this.#status = status
        this.#events.emit("status", status)
    }

    /** What is said again is no event. */
    #connection(connection: ConnectionStatus, isGone = false): void {
        const { relay, state, reason } = connection
        const old = this.#connections.get(relay)
        if (!isGone && old?.state === state && old.reason === reason) return
        const before = this.#owner.isConnected
        if (isGone) this.#connections.delete(relay)
        else this.#connections.set(relay, connection)
        this.#events.emit("connection", connection)
        const after = this.#owner.isConnected
        if (after !== before) for (const { handle } of [...this.#handles.values()]) handle.connected(after)
    }

    /** Gives the host the token that it asked for, or else lets it ask again. */
    async #give(relay: string): Promise<void> {
        const tell = (token: string | undefined, failure = ""): void => {
            clearTimeout(timer)
            this.#asked.delete(late)
            this.#link.post({ type: "token", relay, token, failure })
        }
        const late = (): void => tell(undefined, "it takes too long")
        const timer = setTimeout(late, TOKEN_MS_MAX)
        this.#asked.add(late)
        try {
            const given: unknown = typeof this.#token === "function" ? await this.#token(relay) : this.#token
            // What comes late may be just in time for another who asks; but that it failed is not.
            if (typeof given === "string") tell(given)
            else if (this.#asked.has(late)) tell(undefined, "the function gave no string")
        } catch (error) {
            if (this.#asked.has(late)) tell(undefined, words(error))
        }
    }

    #wiped(): void {
        const gone = [...[...this.#handles.values()].map(({ handle }) => handle), ...this.#leaving.values()]
        // Who is told may open others.
        this.#handles.clear()
        this.#leaving.clear()
        for (const handle of gone) handle.wiped()
        this.#journal?.flush()
        this.#unsaved.clear()
        this.#sum = { state: "saved" }
        this.#updateStatus()
    }

    #connected(before: number): Said[] {
        // What a listener asks for comes after what is said here.
        queueMicrotask(() => this.#events.emit("documents", {}))
        if (!this.#online) this.#setOnline(false)
        const open = [...this.#handles.values()].map(({ handle }) => handle)
        return [...open, ...this.#leaving.values()].flatMap((handle) => handle.resume(before))
    }

    #unserved(error: Error): void {
        for (const { relay } of this.connections) {
            this.#message({ type: "connection", connection: { relay, state: "offline" } })
        }
        for (const { handle } of this.#handles.values()) handle.unserved(error)
        this.#sum = { state: "offline", storageError: words(error) }
        this.#updateStatus()
        this.#events.emit("problem", error)
    }

    #trapped(document: string | undefined, message: string): void {
        const which = document === undefined ? "" : ` on the document ${document}, which is not opened again`
        this.#events.emit("problem", new RepoError("failed", `the document engine failed${which}: ${message}`))
    }
}

/** The document that a url names. */
function named(url: string): string {
    if (typeof url === "string") return url.replace(/^automerge:/, "")
    throw new RepoError("failed", `${String(url)} is no url of a document; one is a string, "automerge:…"`)
}

/** As the relay takes it. */
function checkedName(option: string, name: string): string {
    const bytes = typeof name === "string" ? new TextEncoder().encode(name).length : 0
    if (bytes > 0 && bytes <= 256 && !/\p{Cc}/u.test(name)) return name
    throw new RepoError("failed", `the option "${option}" has 1 to 256 bytes, and no control characters`)
}

/** In one spelling, since documents are kept for each relay by its name. */
function checked(url: string): string {
    const { href } = URL.canParse(url) ? new URL(url) : { href: "" }
    if (/^wss?:/.test(href)) return href.replace(/#.*/, "").replace(/^(\w+:\/\/[^/]+)\/$/, "$1")
    throw new RepoError("failed", `${JSON.stringify(url)} is no url of a relay; one begins with ws:// or wss://`)
}

/** What a browser lacks that documents can be kept and shared by tabs. What it has may still refuse. */
function whyUnable(): string | undefined {
    try {
        const { indexedDB, navigator, BroadcastChannel } = globalThis
        if (typeof indexedDB?.open !== "function") return "there is no IndexedDB"
        if (typeof navigator?.locks?.request !== "function") return "there are no Web Locks"
        if (typeof BroadcastChannel !== "function") return "there is no BroadcastChannel"
        new BroadcastChannel("reconverge").close()
        return undefined
    } catch (error) {
        return words(error)
    }
}

/** Why the browser lets this page keep nothing, as it does not in a sandboxed frame; nothing if it may. */
async function whyDenied(name?: string): Promise<string | undefined> {
    const why = whyUnable()
    if (why !== undefined) return why
    try {
        await navigator.locks.request(`reconverge:${hex()}`, () => {})
    } catch (error) {
        return words(error)
    }
    const storage = new IndexedDbStorage({ ...(name !== undefined && { name }) })
    try {
        await storage.keys([""])
        return undefined
    } catch (error) {
        return (error as StorageError).failure === "denied" ? words(error) : undefined
    } finally {
        storage.close()
    }
}

const unkept = (why: string): RepoError =>
    new RepoError("storage", `documents are in memory only, and gone when this page is: ${why}`)

/** Hears when there is a network again, when somebody looks at the page, leaves it and comes back. */
function listen(link: Link, askAnew: () => void, suspend: () => void): () => void {
    if (typeof addEventListener !== "function") return () => {}
    const unlisten = new AbortController()
    const { signal } = unlisten
    const online = (): void => {
        askAnew()
        link.wake(true)
    }
    addEventListener("online", online, { signal })
    if (typeof document === "object") {
        const visible = (): void => {
            if (document.visibilityState === "visible") link.wake(false)
        }
        document.addEventListener("visibilitychange", visible, { signal })
        // What an app edits after that, when it hears that it is hidden, is in the journal.
        addEventListener("pagehide", (event) => event.persisted && suspend(), { signal })
        addEventListener("pageshow", (event) => event.persisted && link.goOn(), { signal })
    }
    return () => unlisten.abort()
}
