// A host: the one place of an origin where the documents of a database are. It runs the engine,
// owns the storage and the connections to relays, and serves the pages that attach to it.
//
// It lives in a Worker of one page, or in the page itself where there are no Workers. When that
// page is closed, another one starts the next host.

import { __wbg_reset_state as renewInstance, Client, documentId, initSync } from "../../dist/core/reconverge.js"
import type { Operation } from "../operations.js"
import type { Entry } from "../journal.js"
import { hex } from "../names.js"
import type { Chunk, Storage, StorageWrite } from "../storage.js"
import { isSame, Tally } from "../tally.js"
import type { ChangeInfo, ConnectionStatus, FailureCode, Heads, Mark, Path, QuarantinedChange, Span } from "../types.js"
import {
    ASIDE,
    words,
    type CallName,
    type Calls,
    type DocumentStatus,
    type Edit,
    type Failure,
    type HostMessage,
    type HostOptions,
    type Opened,
    type PageMessage,
    type Port,
    type Resume,
    type StoredEdits,
    type Wiped,
} from "./protocol.js"
import { Socket, type MakeWebSocket } from "./socket.js"
import { EngineError, View } from "./view.js"
import { Wanted, type Found, type Wishes } from "./wanted.js"

/** What a host gets from the place where it runs. */
export interface Surroundings {
    readonly options: HostOptions
    readonly storage: Storage
    /** What pages edit, until it is stored, if they keep that. */
    readonly journal?: Storage | undefined
    readonly webSocket: MakeWebSocket
    /** The core's module, compiled or to be. */
    readonly module: unknown
    /** Of what the host before it wiped, that which no relay has. */
    readonly unsent?: readonly string[] | undefined
    /** Whether there are to be connections. */
    readonly online?: boolean | undefined
}

type IsAlive = (page: string) => boolean

/** What `Client.poll` gives. */
type Output =
    | { type: "idle"; wakeAt: number | undefined }
    | { type: "connect"; relay: number; connection: number }
    | { type: "disconnect"; connection: number }
    | { type: "send"; connection: number; bytes: Uint8Array<ArrayBuffer>; reads: string | undefined }
    | { type: "ping"; connection: number; bytes: Uint8Array<ArrayBuffer> | undefined }
    | { type: "load"; document: string }
    | { type: "store"; document: string; writes: StorageWrite[] }
    | { type: "storeFailed"; document: string; error: string }
    | { type: "flushed"; document: string }
    | { type: "found"; document: string; code?: FailureCode; error?: string }
    | { type: "changed"; document: string }
    | { type: "takenOut"; document: string }
    | { type: "salvaged"; document: string; error: string }
    | { type: "status"; document: string; state: DocumentStatus["state"]; reason?: string }
    | { type: "ephemeral"; document: string; sender: string; message: unknown }
    | { type: "added"; document: string }
    | { type: "current"; asked: number; why: string | undefined }
    | { type: "deleted"; document: string }

/** Somebody's call that is not answered yet. */
interface Waiting {
    readonly check: () => boolean
    readonly resolve: () => void
    readonly reject: (error: unknown) => void
}

/** A document that some page has open. */
interface Shown {
    readonly views: Map<Page, View>
    status: DocumentStatus
    /** How many commits of it were done. */
    commits: number
}

interface Page {
    /** As its entries in the journal name it; empty if there can be none. */
    readonly name: string
    readonly port: Port<HostMessage, PageMessage>
    /** Calls that may still be cancelled. */
    readonly calls: Map<number, AbortController>
    /** Of documents that it goes on with: what it says of them is heard after that, in order. */
    readonly resuming: Map<string, Promise<void>>
    /** Documents that it cannot go on with, and why: nothing true can be answered about its edits. */
    readonly lost: Map<string, CallError>
    /** The tokens that it was asked for. */
    readonly asked: Map<string, Asked>
    /** It is gone, and what it edited is being made and stored: it is let go of after that. */
    isLeaving?: boolean
}

/** A token that a page was asked for. */
interface Asked {
    readonly given: Promise<string>
    readonly give: (token: string | undefined, failure: string) => void
}

/** A connection, from when it is asked for. */
interface Line {
    readonly relay: string
    /** That it was made with. */
    token?: string
    socket?: Socket
}

/** A call that failed for a reason that the caller can tell apart. */
class CallError extends Error {
    constructor(
        readonly code: FailureCode,
        message: string,
    ) {
        super(message)
    }
}

/** The hosts of this thread: they share the instance of the module, and so its end. */
const hosts = new Set<Host>()

const DOCUMENT_GONE = "the document was deleted, or let go of"
const AVOIDED = "the document engine failed on this document"
const UNWANTED = "nobody waits for it"

/** How long other things wait for what takes long, and how many changes are listed at once meanwhile. */
const TURN_MS = 8
const LISTED = 64

let listings = 0

export class Host {
    #client: Client
    #storage: Storage
    #journal: Storage | undefined
    /** It is known after that what is to be made of pages that are gone. */
    #known: Promise<unknown> = Promise.resolve()
    /** What is being made of them, by their names. One that comes back waits for it, */
    #making = new Map<string, Promise<unknown>>()
    /** and who opens a document waits for what is being made in it. */
    #makingIn = new Map<string, Promise<unknown>>()
    #options: HostOptions
    #webSocket: MakeWebSocket
    #lines = new Map<number, Line>()
    #wanted = new Wanted()
    /** Those that the engine has, in its order. */
    #relays: string[]
    #connections = new Map<string, ConnectionStatus>()
    /** One after the other, other relays are named in storage. */
    #naming: Promise<unknown> = Promise.resolve()
    #awayTimer: ReturnType<typeof setTimeout> | undefined
    /** Of relays that refused: how long to wait before a page is asked for another token, and for that. */
    #renewals = new Map<string, { ms: number; timer?: ReturnType<typeof setTimeout> }>()
    #pages = new Set<Page>()
    #shown = new Map<string, Shown>()
    #finders = new Map<string, ((failure?: CallError) => void)[]>()
    #deleters = new Map<string, ((failure?: CallError) => void)[]>()
    #waiting = new Set<Waiting>()
    /** Why documents may be old, by the number of the question; empty if they are current. */
    #answers = new Map<number, string | undefined>()
    /** What may take long, each step of which tells whether it was the last. */
    #work: (() => boolean)[] = []
    /** Everything else comes first now. */
    #isResting = false
    /** All that is kept is being removed: what is to be written waits, and is not if that succeeds. */
    #wiping: Promise<void> | undefined
    /** Names the last time. */
    #wiped: string | undefined
    /** What no relay has of what was removed then. */
    #unsent: readonly string[]
    /** What is stored of edits whose page needs it no more, and since when. */
    #partings: { author: string[]; key: string[]; at: number }[] = []
    /** What is stored with the commit that is under way, of who made the edits in it. */
    #untold = new Map<string, StorageWrite[]>()
    /** How safe all documents are, and what of that pages were told. */
    #tally = new Tally()
    #refusal: { reason?: string } = {}
    #sum: DocumentStatus = { state: "saved" }
    /** Documents whose last commit failed, and why. */
    #unstored = new Map<string, string>()
    #timer: ReturnType<typeof setTimeout> | undefined
    #polling = false
    #online = true
    /** Connections that were asked for while there should be none. */
    #withheld: number[] = []
    #closed = false
    #attached: (page: Page) => void = () => {}
    /** The view whose page asked for what is being done. */
    #acting: View | undefined
    /** The document that the engine was asked to work on last, to be named if it traps. */
    #current: string | undefined
    /**
     * Called when the engine trapped; this host is of no further use. Names the document on which it
     * did, if that is known.
     */
    ontrap: ((document: string | undefined, error: unknown) => void) | undefined
    /** Called when all was wiped; this host is of no further use, and the next one tells the pages. */
    onwiped: ((unsent: readonly string[], online: boolean) => void) | undefined

    static async start(surroundings: Surroundings): Promise<Host> {
        const { options, storage, journal, webSocket, module, unsent = [], online = true } = surroundings
        await start(module)
        if (options.keeps) await checkFormat(storage)
        const storageId = options.keeps ? await named(storage, STORAGE_ID) : ""
        // Other tabs, which may want these, are not heard yet.
        const away = journal === undefined ? [] : (await namedRelays(storage)).filter(isNoneOf(options.relays))
        const relays = [...options.relays, ...away]
        // Without room for the names, what is stored can be read all the same.
        const isNamed = await nameRelays(storage, relays).then(
            () => true,
            () => false,
        )
        await forgetUntold(storage, journal)
        const outbox = (await storage.keys(["outbox"])).map((key) => key[1] ?? "")
        const wiped = await storage.load(WIPED)
        const session = hex()
        const client = new Client(options.peerId, storageId, session, [...options.relays], Math.random())
        const host = new Host(client, storage, options, webSocket, unsent)
        // Until they are read, nothing is known of them but that some relay lacks something.
        for (const document of outbox) host.#tally.set(document, "offline")
        host.#journal = journal
        host.#online = online
        host.#wiped = wiped && decode(wiped)
        host.#setRelays(options.relays, away)
        if (!isNamed) host.#nameLater()
        storage.onlost = () => void host.#writeAgain(storageId)
        host.#run(() =>
            host.#client.outbox(
                now(),
                outbox.filter((document) => !host.#avoids(document)),
            ),
        )
        return host
    }

    private constructor(
        client: Client,
        storage: Storage,
        options: HostOptions,
        webSocket: MakeWebSocket,
        unsent: readonly string[],
    ) {
        this.#client = this.#watched(client)
        hosts.add(this)
        this.#storage = storage
        this.#options = options
        this.#webSocket = webSocket
        this.#unsent = unsent
        this.#relays = [...options.relays]
        // It can be asked when it listens.
        const own = new Promise<Page>((resolve) => (this.#attached = resolve))
        this.#wanted.add(this, options, async (relay) => this.#ask(await own, relay))
    }

    /** Serves a page. Gives what ends that. */
    attach(port: Port<HostMessage, PageMessage>, name = "", wishes?: Wishes): () => void {
        const page = newPage(name, port)
        this.#pages.add(page)
        const wiped = this.#wiped
        // On the same port as to the host before, to which it speaks until it hears of this one.
        let isHeard = name !== ""
        port.onmessage = (message) => {
            isHeard ||= message.type === "hello" && message.wiped === wiped
            if (isHeard) this.#heed(() => this.#message(page, message))
        }
        port.post({ type: "welcome", wiped, unsent: this.#unsent })
        if (wishes !== undefined && name !== "") {
            this.#wanted.add(page, wishes, (relay) => this.#ask(page, relay))
            this.#want()
            for (const relay of wishes.relays) void this.#retry(relay)
        }
        return () => this.#detach(page)
    }

    /** There may be a network again, or somebody looks at a page again. */
    wake(isOtherNetwork = false): void {
        if (!this.#online) return
        // What went over the old network may be dead without anybody noticing.
        if (isOtherNetwork) for (const connection of [...this.#lines.keys()]) this.#lose(connection)
        this.#heed(() => this.#client.networkAvailable(now()))
        for (const relay of [...this.#renewals.keys()]) void this.#retry(relay)
    }

    /** Ends the host. What is not stored is tried to be. */
    async close(): Promise<void> {
        await this.#wiping
        if (!this.#closed) await this.#flush().catch(() => {})
        this.#stop()
        const closed = new CallError("closed", "the repo was shut down")
        for (const waiting of this.#waiting) waiting.reject(closed)
        for (const finders of [...this.#finders.values(), ...this.#deleters.values()]) {
            for (const tell of finders) tell(closed)
        }
        this.#storage.close()
    }

    #stop(): void {
        this.#closed = true
        hosts.delete(this)
        clearTimeout(this.#timer)
        clearTimeout(this.#awayTimer)
        for (const { timer } of this.#renewals.values()) clearTimeout(timer)
        for (const { socket } of this.#lines.values()) socket?.close()
        this.#lines.clear()
    }

    #detach(page: Page): void {
        if (!this.#pages.delete(page)) return
        for (const call of page.calls.values()) call.abort()
        for (const { give } of page.asked.values()) give(undefined, "")
        page.port.close()
        this.#wanted.remove(page)
        if (!this.#closed) this.#want()
        const isKept = this.#journal !== undefined && page.name !== ""
        page.isLeaving = isKept
        let take = (): void => {}
        const turn = new Promise<void>((resolve) => (take = resolve))
        if (isKept) this.#takeUpOf(page, turn)
        // What it said before it went counts.
        this.#inOrder(page, [...page.resuming.keys()], () => (isKept ? take() : this.#releaseAll(page)))
    }

    /**
     * Makes what pages that are gone edited in their last moment; what is opened from now on is opened
     * after that. Gives the names of the others.
     */
    async takeUp(living: IsAlive | Promise<IsAlive>): Promise<string[]> {
        const started = this.#startTakingUp(living)
        this.#openAfter(started)
        return started
    }

    async #startTakingUp(living: IsAlive | Promise<IsAlive>): Promise<string[]> {
        const isAlive = await living
        const keys = (await this.#journal?.keys([]).catch(() => [])) ?? []
        const names = [...new Set(keys.map(([name = ""]) => name))].filter((name) => name !== ASIDE)
        const port = { post: () => {}, onmessage: undefined, close: () => {} }
        for (const name of names) {
            if (isAlive(name)) continue
            this.#takeUpOf(newPage(name, port))
        }
        return names.filter(isAlive)
    }

    /** What was edited in a document by pages that are gone is there after that. */
    async #takenUp(document = ""): Promise<void> {
        for (let known; known !== this.#known;) await (known = this.#known)
        await this.#makingIn.get(document)
    }

    #openAfter(known: Promise<unknown>): void {
        this.#known = Promise.all([this.#known, known.catch(() => {})])
    }

    /** Makes what is left of a page that is gone, as if it had lived on, and lets go of it. */
    #takeUpOf(page: Page, turn?: Promise<void>): void {
        const left = Promise.resolve(turn).then(() => this.#journal?.loadRange([page.name]))
        const begun = left.catch(() => undefined).then((left) => ({ made: this.#make(page, left) }))
        this.#openAfter(begun)
        whileDone(
            this.#making,
            page.name,
            begun.then(({ made }) => made),
        )
    }

    async #make(page: Page, left: readonly Chunk[] | undefined): Promise<void> {
        const authors = new Map<string, Entry[]>()
        for (const { data } of left ?? []) {
            const entry = data as unknown as Entry
            push(authors, entry.author, entry)
        }
        const kept = new Set<string>()
        const made = [...authors].map(async ([author, entries]) => {
            const isMade = this.#makeOf(page, author, entries)
            whileDone(this.#makingIn, entries[0]!.document, isMade)
            if (!(await isMade)) kept.add(author)
        })
        await Promise.all(made)
        const done = left?.filter(({ key }) => !kept.has(key[1] ?? ""))
        this.#partWith(page, done).catch(() => {})
    }

    /** Makes the edits of a handle. Gives whether nobody needs their entries any more. */
    async #makeOf(page: Page, author: string, entries: Entry[]): Promise<boolean> {
        entries.sort((a, b) => a.edit.seq - b.edit.seq)
        const { document, edit: first, wiped } = entries[0]!
        if (this.#isGone(wiped)) return true
        const view = this.#shown.get(document)?.views.get(page)
        if (view && (view.author ?? author) === author) {
            for (const entry of entries) {
                if (entry.edit.seq <= view.processed + 1) this.#heed(() => this.#heard(page, entry))
            }
            return true
        }
        // It is here again, and tells its edits itself.
        const [living] = this.#earlier(page, document, author)
        if (living && this.#pages.has(living)) return false
        try {
            const isHere = (await this.#storage.keys(["documents", document])).length > 0
            if (!isHere) throw new CallError("deleted", DOCUMENT_GONE)
            const edits = entries.map(({ edit }) => edit).filter(({ seq }, i) => seq === first.seq + i)
            const { base } = entries.at(-1)!
            const resume = { author, base, unstored: first.seq, edits, renamed: [] }
            await this.#calls.resume(page, NOBODY, document, resume)
            return true
        } catch (error) {
            if (!(error instanceof CallError)) return false
            if (this.#avoids(document)) return this.#giveUp(page, entries)
            // The next host may be able to. What is not here has a day.
            const isVain = error.code === "deleted" || error.code === "damaged"
            return isVain && first.time * 1000 <= Date.now() - UNTOLD_MS
        }
    }

    /**
     * At these edits, or in their document, the engine trapped, and it is not opened any more. Next
     * pages try again, since what trapped may be somebody else's, and relays take that out. If it still
     * does after a while, the edits are set aside, and the document can be used without them.
     */
    async #giveUp({ name }: Page, entries: readonly Entry[]): Promise<boolean> {
        const { document, triedAt = Date.now() } = entries[0]!
        const isLast = triedAt < Date.now() - TRIED_MS
        const key = ({ author, edit }: Entry): string[] => [...(isLast ? [ASIDE] : []), name, author, `${edit.seq}`]
        const writes = entries.map((entry) => ({ put: key(entry), data: { ...entry, triedAt } as never }))
        try {
            await this.#journal?.commit(writes)
        } catch {
            return false
        }
        const message = `the document engine failed on edits of ${document} again: they are set aside`
        if (isLast) this.#tell({ type: "problem", message })
        return isLast
    }

    /** Lets go of a page that is gone, when all is stored that it edited. */
    async #partWith(page: Page, left: readonly Chunk[] | undefined): Promise<void> {
        const documents = [...this.#shown].filter(([, { views }]) => views.has(page)).map(([document]) => document)
        await this.#until(() => documents.every((document) => this.#client.isStored(document)))
        if (left && left.length > 0) await this.#journal?.commit(left.map(({ key }) => ({ remove: key })))
        page.isLeaving = false
        // It may not be gone but kept by the browser, and when somebody comes back it tells its edits.
        // If its journal could not be read, the next host reads it.
        const views = [...this.#shown.values()].flatMap(({ views }) => views.get(page) ?? [])
        this.#releaseAll(page, new Set(left?.map(({ key }) => key[1]) ?? views.map(({ author }) => author)))
    }

    // The engine.

    /** Does something with the engine, and what follows from it. */
    #run<T>(action: () => T): T | undefined {
        if (this.#closed) return undefined
        const result = action()
        this.#poll()
        return result
    }

    /** What nobody waits for: if the engine traps, that is told already. */
    #heed(action: () => void): void {
        try {
            this.#run(action)
        } catch (error) {
            if (!(error instanceof EngineError)) throw error
        }
    }

    /** The engine, whose every call may be its last: afterwards its memory is of no use. */
    #watched(client: Client): Client {
        return new Proxy(client, {
            get: (target, name) => {
                const value: unknown = Reflect.get(target, name, target)
                if (typeof value !== "function") return value
                return (...args: unknown[]): unknown => {
                    if (this.#closed) throw new EngineError("the document engine has ended")
                    const document = args.slice(0, 2).find((arg) => typeof arg === "string")
                    if (document !== undefined) this.#current = document as string
                    else if (name === "frame") this.#current = documentIn(args[2] as Uint8Array)
                    try {
                        return value.apply(target, args) as unknown
                    } catch (error) {
                        if (!isTrap(error)) throw error
                        throw this.#trapped(error)
                    }
                }
            },
        })
    }

    /**
     * Ends all hosts of this thread, whose clients are in the memory that is of no use now. What was
     * asked of them and is not answered is asked of the next ones, except the call that trapped.
     */
    #trapped(error: unknown): EngineError {
        const document = this.#current
        const ended = [...hosts]
        for (const host of ended) host.#stop()
        // No call gets through to a client of the old instance any more.
        renewInstance()
        // The call's answer goes first.
        setTimeout(() => {
            for (const host of ended) {
                for (const { port } of host.#pages) port.close()
                host.ontrap?.(host === this ? document : undefined, error)
            }
        })
        return new EngineError("the document engine failed, and starts anew")
    }

    #poll(): void {
        if (this.#polling) return
        this.#polling = true
        try {
            for (;;) {
                const output = this.#client.poll(now()) as Output
                this.#current = "document" in output ? output.document : undefined
                if (output.type === "idle") {
                    this.#wakeAt(output.wakeAt)
                    break
                }
                this.#perform(output)
            }
        } finally {
            this.#polling = false
        }
        for (const waiting of [...this.#waiting]) if (waiting.check()) waiting.resolve()
        this.#tellSum()
    }

    #wakeAt(at: number | undefined): void {
        clearTimeout(this.#timer)
        if (at === undefined || this.#closed) return
        const wait = Math.min(Math.max(at - now(), 0), 2 ** 31 - 1)
        this.#timer = setTimeout(() => this.#heed(() => this.#client.tick(now())), wait)
    }

    #perform(output: Exclude<Output, { type: "idle" }>): void {
        switch (output.type) {
            case "connect":
                return this.#connect(output.relay, output.connection)
            case "disconnect":
                return this.#disconnect(output.connection)
            case "send": {
                const { connection, bytes, reads } = output
                const sent = (): void => this.#heed(() => this.#client.sent(now(), connection, reads))
                // Later, because the engine is being polled.
                this.#lines.get(connection)?.socket?.send(bytes, () => queueMicrotask(sent))
                return
            }
            case "ping": {
                // A browser sends no pings. A relay that does not answer a message either is gone if it
                // owes us a word, or what was sent waits in the socket.
                const { connection, bytes } = output
                const socket = this.#lines.get(connection)?.socket
                if (bytes) return socket?.ping(bytes)
                const isOwed = [...this.#shown.values()].some(({ status }) => status.state === "saving")
                const isFlushed = socket?.isFlushed ?? false
                if (isFlushed && !isOwed) this.#client.pong(now(), connection)
                return
            }
            case "load":
                return void this.#load(output.document)
            case "store":
                return void this.#store(output.document, output.writes)
            case "storeFailed":
                this.#unstored.set(output.document, output.error)
                this.#tellStatus(output.document)
                for (const tell of take(this.#deleters, output.document)) tell(new CallError("storage", output.error))
                for (const view of this.#views(output.document)) view.update()
                return
            case "flushed":
                if (this.#unstored.delete(output.document)) this.#tellStatus(output.document)
                for (const view of this.#views(output.document)) {
                    view.stored()
                    view.update()
                }
                return
            case "found": {
                const { document, code, error } = output
                const failure = code && new CallError(code, error ?? code)
                for (const tell of take(this.#finders, document)) tell(failure)
                this.#letGoOf(document)
                return
            }
            case "changed":
                return this.#spread(output.document)
            case "status": {
                this.#tally.set(output.document, output.state)
                if (output.state === "refused") this.#refusal = output
                const shown = this.#shown.get(output.document)
                if (shown === undefined) return
                shown.status = status(output)
                return this.#tellStatus(output.document)
            }
            case "ephemeral": {
                const { document, sender, message } = output
                for (const page of this.#shown.get(document)?.views.keys() ?? []) {
                    page.port.post({ type: "ephemeral", document, sender, message })
                }
                return
            }
            case "salvaged": {
                const { document, error } = output
                const message = `local storage: ${error}; ${document} begins anew with what is whole of it, and relays are asked for the rest`
                return this.#tell({ type: "problem", message })
            }
            case "takenOut":
                for (const page of this.#shown.get(output.document)?.views.keys() ?? []) page.port.post(output)
                return
            case "current":
                return void this.#answers.set(output.asked, output.why)
            case "added":
                return this.#tell({ ...output, type: "listed", isHere: true })
            case "deleted": {
                const { document } = output
                this.#tell({ ...output, type: "listed", isHere: false })
                this.#tally.set(document, "saved")
                for (const tell of take(this.#deleters, document)) tell()
                for (const page of this.#shown.get(document)?.views.keys() ?? []) {
                    page.port.post({ type: "deleted", document })
                }
                this.#shown.delete(document)
                this.#unstored.delete(document)
            }
        }
    }

    #views(document: string): View[] {
        return [...(this.#shown.get(document)?.views.values() ?? [])]
    }

    /** Tells all views of a document but one what changed in it. */
    #spread(document: string, but?: View): void {
        const [operations, whole] = this.#client.takePatches(document) as [Operation[], boolean]
        for (const view of this.#views(document)) {
            if (view !== but) view.changed(operations, whole, view === this.#acting)
        }
    }

    /** Sends what can be sent. Views show only what is stored, so that the next host knows it too. */
    #update(document: string): void {
        if (!this.#client.isStored(document) && !this.#unstored.has(document)) return
        for (const view of this.#views(document)) view.update()
    }

    /** How safe all documents are, if that changed. */
    #tellSum(): void {
        const { state } = this.#tally
        const [storageError] = this.#unstored.values()
        const sum = {
            ...status({ ...(state === "refused" && this.#refusal), state }),
            ...(storageError !== undefined && { storageError }),
        }
        if (isSame(sum, this.#sum)) return
        this.#sum = sum
        this.#tell({ type: "sum", status: sum })
    }

    #tellStatus(document: string): void {
        const shown = this.#shown.get(document)
        if (shown === undefined) return
        const status = this.#status(document, shown)
        for (const [page, { processed }] of shown.views) {
            page.port.post({ type: "status", document, status, processed })
        }
    }

    #status(document: string, shown: Shown): DocumentStatus {
        const storageError = this.#unstored.get(document)
        return storageError === undefined ? shown.status : { ...shown.status, storageError }
    }

    // Storage.

    async #load(document: string): Promise<void> {
        const entries: unknown[][] = []
        let failure = this.#avoids(document) ? AVOIDED : undefined
        try {
            const chunks = failure === undefined ? await this.#storage.loadRange(["documents", document]) : []
            for (const { key, data } of chunks) entries.push([key.slice(2), data])
        } catch (error) {
            failure = words(error)
        }
        this.#heed(() => this.#client.loaded(now(), document, entries, failure))
    }

    async #store(document: string, writes: StorageWrite[]): Promise<void> {
        // Also if it is removed: pages may tell their edits of it again, if it is found again.
        // The same ones when the commit is tried again: it has no edits that were made meanwhile.
        const untold = this.#untold.get(document) ?? this.#views(document).flatMap(untoldOf)
        this.#untold.set(document, untold)
        let failure: string | undefined
        try {
            await this.#commit([...writes, ...untold])
            this.#untold.delete(document)
            const shown = this.#shown.get(document)
            if (shown) shown.commits++
        } catch (error) {
            failure = words(error)
            this.#tell({ type: "problem", message: `local storage: ${failure}` })
        }
        this.#heed(() => this.#client.stored(now(), document, failure))
    }

    /** The browser deleted what was kept. Of the documents that are open, all of it is here too. */
    async #writeAgain(storageId: string): Promise<void> {
        if (this.#closed) return
        const kept = this.#client.documents().flatMap((document) => this.#client.kept(document) as StorageWrite[])
        const ours = [{ put: STORAGE_ID, data: encode(storageId) }, namesOf(this.#relays)]
        const lost = "local storage was deleted, by the browser or its user"
        try {
            await this.#commit([...ours, ...kept])
            this.#tell({ type: "problem", message: `${lost}; the documents that are open were written again` })
        } catch (error) {
            this.#tell({ type: "problem", message: `${lost}, and cannot be written again: ${words(error)}` })
        }
    }

    /** During a wipe, waits; after it, for ever: what was begun before does not go on. */
    async #unlessWiped(): Promise<void> {
        await this.#wiping
        if (this.#wiping) await new Promise(() => {})
    }

    async #commit(writes: StorageWrite[]): Promise<void> {
        if (this.#wiping) await this.#unlessWiped()
        return this.#storage.commit(writes)
    }

    #flush(): Promise<void> {
        this.#run(() => this.#client.flush())
        const documents = this.#client.documents()
        const failed = (): string | undefined => documents.find((document) => this.#unstored.has(document))
        return this.#until(() => {
            const document = failed()
            if (document !== undefined) throw new CallError("storage", this.#unstored.get(document) ?? "")
            return documents.every((document) => this.#client.isFlushed(document))
        })
    }

    /** Waits until `check` says so, which is asked after everything that happens. */
    #until(check: () => boolean, signal?: AbortSignal): Promise<void> {
        return new Promise((resolve, reject) => {
            const end = (): void => {
                this.#waiting.delete(waiting)
                signal?.removeEventListener("abort", abort)
            }
            const abort = (): void => waiting.reject(new CallError("failed", UNWANTED))
            const waiting: Waiting = {
                check: () => {
                    try {
                        return check()
                    } catch (error) {
                        waiting.reject(error)
                        return false
                    }
                },
                resolve: () => (end(), resolve()),
                reject: (error) => (end(), reject(error)),
            }
            signal?.addEventListener("abort", abort)
            this.#waiting.add(waiting)
            if (waiting.check()) waiting.resolve()
        })
    }

    // Relays.

    #connect(place: number, connection: number): void {
        const relay = this.#relays[place] ?? ""
        if (!this.#online) {
            this.#withheld.push(connection)
            return
        }
        const line: Line = { relay }
        this.#lines.set(connection, line)
        this.#connection({ relay, state: "connecting" })
        const isConnected = (): boolean => this.#connections.get(relay)?.state === "connected"
        const end = (status: ConnectionStatus): void => {
            if (this.#lines.get(connection) !== line) return
            this.#lines.delete(connection)
            this.#connection(status)
            const refused = status.state === "refused" ? status.reason : undefined
            this.#heed(() => this.#client.closed(now(), connection, refused))
            if (refused !== undefined) this.#renew(relay)
        }
        const dial = ({ token, reason }: Found): void => {
            if (this.#lines.get(connection) !== line) return
            if (token === undefined) return end(refusal(relay, reason ?? ""))
            line.token = token
            line.socket = new Socket(this.#webSocket, relay, token, {
                opened: () => this.#heed(() => this.#client.connected(now(), connection)),
                message: (bytes) => {
                    this.#heed(() => this.#client.frame(now(), connection, bytes))
                    // The word may be that it does not want us.
                    if (this.#lines.get(connection) !== line || isConnected()) return
                    this.#forgetRenewal(relay)
                    this.#connection({ relay, state: "connected" })
                },
                closed: (refused, isMild) => {
                    if (refused !== undefined && !isMild) this.#wanted.refuse(relay, token, refused)
                    // Somebody who is let in and put out again, and so on, waits all the same.
                    if (isConnected()) this.#renewals.set(relay, { ms: RENEW_MS_MIN })
                    end(refusal(relay, refused))
                },
            })
        }
        const fail = (error: unknown): void => end({ relay, state: "offline", reason: words(error) })
        this.#wanted.find(relay).then(dial).catch(fail)
    }

    #disconnect(connection: number): void {
        this.#withheld = this.#withheld.filter((other) => other !== connection)
        const line = this.#lines.get(connection)
        if (line === undefined) return
        line.socket?.close()
        this.#lines.delete(connection)
        const { relay, token } = line
        // It may have answered so, instead of letting us in.
        const reason = this.#client.refusal(this.#relays.indexOf(relay))
        this.#connection(refusal(relay, reason))
        if (reason === undefined) return
        if (token !== undefined) this.#wanted.refuse(relay, token, reason)
        this.#renew(relay)
    }

    #connection(connection: ConnectionStatus): void {
        // One that is gone is not told of any more.
        if (!this.#connections.has(connection.relay)) return
        this.#connections.set(connection.relay, connection)
        this.#tell({ type: "connection", connection })
    }

    /** Asks a page for a token. What it gives too late is there for the next who asks. */
    async #ask(page: Page, relay: string): Promise<string> {
        let asked = page.asked.get(relay)
        if (asked === undefined) {
            let give: Asked["give"] = () => {}
            const given = new Promise<string>((resolve, reject) => {
                give = (token, failure) => {
                    if (token === undefined) reject(new Error(`there is no token: ${failure}`))
                    else resolve(token)
                }
            })
            page.asked.set(relay, (asked = { given, give }))
            page.port.post({ type: "ask", relay })
        }
        let timer: ReturnType<typeof setTimeout> | undefined
        let isLate = false
        const late = new Promise<undefined>((resolve) => {
            timer = setTimeout(() => resolve(void (isLate = true)), TOKEN_MS_MAX)
        })
        try {
            const token = await Promise.race([asked.given, late])
            if (token === undefined) throw new Error("there is no token: it takes too long")
            return token
        } finally {
            clearTimeout(timer)
            if (isLate) asked.given.then(() => this.#retry(relay)).catch(() => {})
            else if (page.asked.get(relay) === asked) page.asked.delete(relay)
        }
    }

    /** Tries a relay at once that is not connected, if there is a token that it did not refuse. */
    async #retry(relay: string): Promise<void> {
        const isTried = (): boolean => [...this.#lines.values()].some((line) => line.relay === relay)
        const isVain = (): boolean => this.#closed || !this.#online || isTried() || !this.#connections.has(relay)
        if (isVain()) return
        const found = await this.#wanted.find(relay).catch((): Found => ({}))
        if (isVain()) return
        const { token } = found
        if (token === undefined) return this.#wanted.isAsked(relay) ? this.#renew(relay) : undefined
        const retry = (): void => this.#client.retry(now(), this.#relays.indexOf(relay))
        this.#wanted.using(relay, token, () => this.#heed(retry))
    }

    /** After a refusal: another page may have another token, and one that is asked another each time. */
    #renew(relay: string): void {
        const { ms, timer } = this.#renewals.get(relay) ?? { ms: 0 }
        clearTimeout(timer)
        const next = Math.min(Math.max(2 * ms, RENEW_MS_MIN), RENEW_MS_MAX)
        this.#renewals.set(relay, { ms: next, timer: setTimeout(() => void this.#retry(relay), ms) })
    }

    #forgetRenewal(relay: string): void {
        clearTimeout(this.#renewals.get(relay)?.timer)
        this.#renewals.delete(relay)
    }

    /** Pages came or went: connects what they want now. What is new is named in storage first. */
    #want(): void {
        const { relays } = this.#wanted
        const known = relays.filter((relay) => this.#relays.includes(relay))
        const away = this.#relays.filter(isNoneOf(relays))
        if (String([...this.#connections.keys()]) === String(relays)) return
        this.#setRelays(known, away)
        this.#name()
    }

    #name(isForgetting = false): void {
        const name = (): Promise<void> => this.#nameNow(isForgetting)
        this.#naming = this.#naming.then(name).catch(() => {
            // Until the storage knows, none is forgotten; a new one that it does not know is new to the next
            // host, too.
            this.#setRelays(this.#wanted.relays, this.#relays.filter(isNoneOf(this.#wanted.relays)))
            this.#nameLater()
        })
    }

    #nameLater(): void {
        clearTimeout(this.#awayTimer)
        if (!this.#closed) this.#awayTimer = setTimeout(() => this.#name(true), AWAY_MS)
    }

    async #nameNow(isForgetting: boolean): Promise<void> {
        const { relays } = this.#wanted
        const away = isForgetting ? [] : this.#relays.filter(isNoneOf(relays))
        const added = await nameRelays(this.#storage, [...relays, ...away], (writes) => this.#commit(writes))
        if (this.#closed) return
        const now = this.#wanted.relays
        const names = [...relays, ...away]
        const isNow = (relay: string): boolean => now.includes(relay)
        this.#setRelays(names.filter(isNow), names.filter(isNoneOf(now)), added)
        if (now.some(isNoneOf(names))) this.#name()
    }

    /** The engine has these from now on, and what was put into the outbox for them. */
    #setRelays(wanted: readonly string[], away: readonly string[], outbox: readonly string[] = []): void {
        this.#relays = [...wanted, ...away]
        const before = this.#connections
        this.#connections = new Map(wanted.map((relay) => [relay, before.get(relay) ?? { relay, state: "connecting" }]))
        for (const relay of away) this.#forgetRenewal(relay)
        if (away.length > 0) this.#nameLater()
        this.#heed(() => {
            this.#client.nameRelays(now(), [...wanted], [...away])
            if (outbox.length > 0)
                this.#client.outbox(
                    now(),
                    outbox.filter((document) => !this.#avoids(document)),
                )
        })
        this.#tellRelays()
    }

    #tellRelays(): void {
        this.#tell(this.#relaysNow)
    }

    get #relaysNow(): HostMessage {
        return {
            type: "relays",
            connections: [...this.#connections.values()],
            online: this.#online,
        }
    }

    #setOnline(online: boolean): void {
        if (online === this.#online) return
        this.#online = online
        this.#tellRelays()
        if (online) {
            // The engine would wait for them until it gives them up.
            for (const connection of this.#withheld.splice(0)) {
                this.#run(() => this.#client.closed(now(), connection))
            }
            return this.wake()
        }
        for (const connection of [...this.#lines.keys()]) this.#lose(connection)
    }

    #lose(connection: number): void {
        this.#disconnect(connection)
        this.#run(() => this.#client.closed(now(), connection))
    }

    #tell(message: HostMessage): void {
        for (const page of this.#pages) page.port.post(message)
    }

    // Pages.

    #message(page: Page, message: PageMessage): void {
        if (message.type === "call") {
            const { call, name, args } = message
            const controller = new AbortController()
            page.calls.set(call, controller)
            const answer = (): Promise<void> => this.#answer(page, controller.signal, call, name, args)
            const isOfAll = name === "flush" || name === "wipe"
            const documents = isOfAll ? page.resuming.keys() : documentsOf(name, args)
            return this.#inOrder(page, [...documents], answer, name === "resume")
        }
        const documents = "document" in message ? [message.document] : []
        this.#inOrder(page, documents, () => this.#heard(page, message))
    }

    /**
     * Does what a page says, once that page's earlier words on these documents are done: at once,
     * unless it goes on with one of them. What `isAwaited` is done when its promise is.
     */
    #inOrder(page: Page, documents: readonly string[], action: () => unknown, isAwaited = false): void {
        const earlier = documents.flatMap((document) => page.resuming.get(document) ?? [])
        if (earlier.length === 0 && !isAwaited) return void action()
        const settled = Promise.all(earlier)
            .then(() => {
                let result: unknown
                this.#heed(() => (result = action()))
                return isAwaited ? result : undefined
            })
            // As an uncaught error is; what follows is done.
            .catch((error: unknown) => void setTimeout(() => Promise.reject(error)))
            .then(() => {
                for (const document of documents) {
                    if (page.resuming.get(document) === settled) page.resuming.delete(document)
                }
            })
        for (const document of documents) page.resuming.set(document, settled)
    }

    #heard(page: Page, message: Exclude<PageMessage, { type: "call" }>): void {
        switch (message.type) {
            case "cancel":
                return page.calls.get(message.call)?.abort()
            case "edit": {
                const { document, author, edit, seen, named } = message
                const view = this.#shown.get(document)?.views.get(page)
                if (view) view.author = author
                return this.#edit(page, document, edit, seen, named)
            }
            case "seen": {
                const view = this.#shown.get(message.document)?.views.get(page)
                view?.seen(message.update)
                return this.#update(message.document)
            }
            case "broadcast": {
                const { document, message: content } = message
                this.#run(() => this.#client.broadcast(document, content))
                // The other pages of this browser hear it without a relay.
                for (const other of this.#shown.get(document)?.views.keys() ?? []) {
                    if (other === page) continue
                    other.port.post({ type: "ephemeral", document, sender: this.#options.peerId, message: content })
                }
                return
            }
            case "release":
                page.lost.delete(message.document)
                return this.#release(page, message.document)
            case "wake":
                return this.wake(message.isOtherNetwork)
            case "bye":
                return this.#detach(page)
            case "hello":
                // Its Worker said nothing to it that counts before.
                if (page.name === "") this.#attached(page)
                page.port.post(this.#relaysNow)
                return page.port.post({ type: "sum", status: this.#sum })
            case "token": {
                const { relay, token, failure } = message
                const asked = page.asked.get(relay)
                // It is asked again from now on, also before whoever waits hears that there is none.
                if (token === undefined) page.asked.delete(relay)
                return asked?.give(token, failure)
            }
        }
    }

    #edit(page: Page, document: string, edit: Edit, seen: number, named: number): void {
        const view = this.#shown.get(document)?.views.get(page)
        // The last host may have stored it, and not come to tell.
        if (view === undefined || edit.seq <= view.processed) return
        this.#current = document
        this.#run(() => {
            if (view.edit(edit, seen, named)) return this.#spread(document, view)
            // It changed nothing, so nothing will be told of it.
            if (this.#client.isStored(document)) view.stored()
            this.#tellStatus(document)
        })
        this.#update(document)
    }

    #releaseAll(page: Page, takenUp?: ReadonlySet<string | undefined>): void {
        for (const document of [...this.#shown.keys()]) this.#release(page, document, takenUp)
    }

    /** What is stored of the authors whose edits were `takenUp` is told for `UNTOLD_MS`. */
    #release(page: Page, document: string, takenUp?: ReadonlySet<string | undefined>): void {
        const shown = this.#shown.get(document)
        const view = shown?.views.get(page)
        if (!shown || !view || this.#closed) return
        shown.views.delete(page)
        const { author } = view
        if (author !== undefined && !takenUp?.has(author))
            this.#partings.push({ author: [page.name, author], key: ["views", document, author], at: Date.now() })
        // What a page removed from its journal may be on its way there.
        const since = Date.now() - (this.#journal ? JOURNAL_MS : 0)
        while (this.#partings[0] && this.#partings[0].at <= since) {
            // If that fails, it is removed some day.
            this.#forget(this.#partings.shift()!).catch(() => {})
        }
        if (shown.views.size === 0) this.#shown.delete(document)
        this.#letGoOf(document)
    }

    async #forget({ author, key }: { author: string[]; key: string[] }): Promise<void> {
        // An entry that could not be removed is made if nobody knows that it was.
        const left = (await this.#journal?.keys(author)) ?? []
        if (left.length === 0) await this.#storage.remove(key)
    }

    /** Lets a document leave memory if nobody uses it. */
    #letGoOf(document: string): void {
        if (this.#shown.has(document) || this.#finders.has(document)) return
        this.#client.observe(document, false)
        queueMicrotask(() => {
            if (!this.#shown.has(document)) this.#heed(() => this.#client.letGo(document))
        })
    }

    /** Gives a page a view of a document that is ready. */
    #show(page: Page, document: string, heads: Heads): View {
        let shown = this.#shown.get(document)
        if (shown === undefined) {
            this.#run(() => this.#client.hold(document))
            this.#client.observe(document, true)
            const now = this.#client.status(document) as Extract<Output, { type: "status" }> | undefined
            shown = { views: new Map(), status: now ? status(now) : { state: "offline" }, commits: 0 }
            this.#shown.set(document, shown)
        }
        const view = new View(this.#client, document, (message) => this.#post(page, message), heads)
        shown.views.set(page, view)
        return view
    }

    /** What became of the edits of a page that is gone, its neighbours are told. */
    #post(page: Page, message: HostMessage): void {
        if (this.#pages.has(page)) return page.port.post(message)
        if (message.type !== "rejected" && message.type !== "leftOut") return
        const what = message.type === "rejected" ? `cannot be made: ${message.message}` : "was left out in part"
        this.#tell({ type: "problem", message: `an edit of ${message.document} by a page that is gone ${what}` })
    }

    #opened(page: Page, document: string): Opened {
        const heads = this.#client.heads(document)
        this.#show(page, document, heads)
        const operations = this.#client.state(document) as Operation[]
        const shown = this.#shown.get(document)
        const status = shown ? this.#status(document, shown) : ({ state: "offline" } as const)
        return { document, heads, operations, status }
    }

    /**
     * A document that did not exist, unless the last host made it and did not come to answer. It is
     * stored first: a journal is of no use to one that nobody has.
     */
    async #made(page: Page, signal: AbortSignal, name: string, make: (document: string) => void): Promise<Opened> {
        const document = parse(name)
        const isMade = (await this.#storage.keys(["documents", document]).catch(() => [])).length > 0
        if (isMade) await this.#find(document, signal)
        else this.#must(() => make(document))
        await this.#until(() => this.#client.isStored(document) || this.#unstored.has(document), signal)
        return this.#opened(page, document)
    }

    async #answer(
        page: Page,
        signal: AbortSignal,
        call: number,
        name: CallName,
        args: readonly unknown[],
    ): Promise<void> {
        let answer: { value?: unknown; failure?: Failure }
        try {
            if (this.#closed) throw new CallError("closed", "the repo was shut down")
            // A page's edits are worth more than its presence.
            if (signal.aborted && name !== "resume") throw new CallError("failed", UNWANTED)
            const documents = documentsOf(name, args)
            const lost = documents.map((document) => page.lost.get(document))
            if (!["resume", "open", "delete"].includes(name)) for (const failure of lost) if (failure) throw failure
            if (!UNOPENED.includes(name)) for (const document of documents) this.#view(page, document)
            const method = this.#calls[name] as (page: Page, signal: AbortSignal, ...args: unknown[]) => unknown
            answer = { value: await method(page, signal, ...args) }
        } catch (error) {
            const code = error instanceof CallError ? error.code : "failed"
            answer = { failure: { code, message: words(error) } }
        }
        page.calls.delete(call)
        if (this.#pages.has(page)) page.port.post({ type: "result", call, ...answer })
        // It left while a document was opened for it.
        else if (page.resuming.size === 0 && page.isLeaving !== true) this.#releaseAll(page)
    }

    #calls: {
        [N in CallName]: (page: Page, signal: AbortSignal, ...args: Calls[N][0]) => Calls[N][1] | Promise<Calls[N][1]>
    } = {
        create: (page, signal, name, operations, time, by) =>
            this.#made(page, signal, name, (document) => this.#client.create(document, [...operations], time, by)),
        open: async (page, signal, document) => {
            const id = parse(document)
            await this.#takenUp(id)
            await this.#find(id, signal)
            page.lost.delete(id)
            return this.#shown.get(id)?.views.has(page) ? undefined : this.#opened(page, id)
        },
        resume: async (page, _, document, resume) => {
            try {
                // Else what is made of it meanwhile would be made twice.
                if (this.#pages.has(page)) await this.#making.get(page.name)
                const stored = await this.#storedEdits(document, resume)
                // Also if the page goes meanwhile.
                await this.#find(document, NOBODY)
                this.#resume(page, document, resume, stored)
                page.lost.delete(document)
            } catch (error) {
                if (error instanceof CallError && error.code === "deleted" && this.#pages.has(page))
                    return page.port.post({ type: "deleted", document })
                page.lost.set(document, error instanceof CallError ? error : new CallError("failed", words(error)))
                throw error
            }
        },
        import: (page, signal, name, bytes, time) => {
            const make = (document: string): void => {
                try {
                    this.#client.import(document, bytes, time)
                } catch (error) {
                    throw isTrap(error) ? error : new CallError("damaged", words(error))
                }
            }
            return this.#made(page, signal, name, make)
        },
        clone: (page, signal, name, of, time) => {
            const saved = this.#client.save(of)
            return this.#made(page, signal, name, (document) => this.#client.import(document, saved, time))
        },
        export: async (_, signal, document) => {
            const id = parse(document)
            await this.#takenUp(id)
            await this.#find(id, signal)
            const bytes = this.#client.save(id)
            this.#letGoOf(id)
            return bytes
        },
        delete: async (_, signal, document) => {
            const id = parse(document)
            const found = this.#find(id, signal).catch((error: unknown) => {
                if (!(error instanceof CallError) || !["unavailable", "damaged"].includes(error.code)) throw error
            })
            await found
            await this.#delete(id)
        },
        merge: (page, signal, document, other) =>
            this.#act(page, signal, document, () => this.#client.merge(document, other)),
        flush: () => this.#flush(),
        documents: () => documentsIn(this.#storage),
        fetch: async (_, signal, document) => {
            const id = parse(document)
            await this.#takenUp(id)
            await this.#find(id, signal)
            // It stays in memory until then.
            await this.#until(() => {
                const failure = this.#unstored.get(id)
                if (failure !== undefined) throw new CallError("storage", failure)
                return this.#client.isStored(id)
            }, signal)
        },
        wipe: (_, signal, evenUnsent) => this.#wipe(evenUnsent, signal),
        current: async (page, signal, document, ms) => {
            const asked = this.#must(() => this.#client.askCurrent(document))
            let isLate = false
            const timer = setTimeout(() => this.#heed(() => (isLate = true)), Math.min(ms, 2 ** 31 - 1))
            const is = (): boolean => {
                this.#view(page, document)
                const why = this.#answers.get(asked) ?? (isLate || !this.#online ? "no relay answers" : undefined)
                if (why) throw new CallError("unavailable", `the document may be old: ${why}`)
                return why === ""
            }
            await this.#until(is, signal).finally(() => {
                clearTimeout(timer)
                this.#heed(() => this.#client.withdraw(asked))
                this.#answers.delete(asked)
            })
            const view = this.#view(page, document)
            const isShown = view.whenShown()
            await this.#until(() => this.#view(page, document) !== view || isShown(), signal)
        },
        synced: (page, signal, document, level) => {
            this.#view(page, document)
            // What is edited meanwhile is not waited for.
            const heads = this.#client.heads(document)
            const commits = (this.#shown.get(document)?.commits ?? 0) + this.#client.commitsDue(document)
            const is = (): boolean => {
                this.#view(page, document)
                if (level === "local") return this.#shown.get(document)!.commits >= commits
                // Of what had to be made again, these heads tell nothing.
                const now = this.#client.status(document) as { state?: string } | undefined
                const all = level === "replicated"
                const isAll = all ? this.#client.isEverywhere(document) : now?.state === "saved"
                return isAll || this.#client.isAcknowledged(document, heads, all)
            }
            return this.#until(is, signal)
        },
        heads: (page, _, document) => this.#view(page, document).heads,
        state: (_, signal, document, heads) =>
            this.#inTurns(signal, () => ({ done: this.#client.state(document, [...heads]) as Operation[] })),
        diff: (_, signal, document, before, after) =>
            this.#inTurns(signal, () => ({
                done: this.#client.diff(document, [...before], [...after]) as [Path, Operation[]][],
            })),
        history: (page, signal, document, name) =>
            this.#history(signal, document, this.#view(page, document).objectId(name)),
        actor: (_, __, document, by) => this.#client.actor(document, by),
        conflicts: (page, _, document, name, prop) => {
            const view = this.#view(page, document)
            const object = view.objectId(name)
            const place = typeof prop === "number" ? view.place(object, prop) : prop
            return this.#client.conflicts(document, object, place) as Record<string, unknown> | undefined
        },
        restore: (page, signal, document, heads, { time, message, by }, as, ...place) =>
            this.#act(page, signal, document, () => {
                const view = this.#view(page, document)
                const [object, map, key] = [
                    place[0] && view.objectId(place[0]),
                    place[1] && view.objectId(place[1]),
                    place[2],
                ]
                const make = (): number => {
                    const operations = this.#client.restoring(document, object, map, key, [...heads])
                    const isUndone = as !== undefined
                    this.#client.change(document, operations, new Map(), time, message, undefined, isUndone, by)
                    return operations.length
                }
                if (as === undefined) return make() > 0 ? new Uint8Array() : undefined
                const { done, record } = view.take(as, make)
                return done > 0 ? record : undefined
            }),
        quarantined: async (_, signal, document) => {
            // What was told a moment ago may be on its way to storage.
            await this.#until(() => this.#client.isStored(document), signal)
            return this.#client.quarantined(document) as QuarantinedChange[]
        },
        changeAt: async (page, signal, document, heads, { operations, time, message, by }) => {
            const make = (): string | undefined =>
                this.#client.change(document, [...operations], new Map(), time, message, [...heads], false, by)
            const hash = await this.#act(page, signal, document, make)
            return hash === undefined ? heads : [hash]
        },
        cursor: (page, _, document, name, index) => {
            const view = this.#view(page, document)
            const object = view.objectId(name)
            return this.#client.cursor(document, object, view.place(object, index))
        },
        position: (page, _, document, name, cursor) => {
            const view = this.#view(page, document)
            const object = view.objectId(name)
            const position = this.#client.position(document, object, cursor)
            if (position === undefined) throw new CallError("failed", `${JSON.stringify(cursor)} is no cursor of this`)
            return view.place(object, position, true)
        },
        marks: (...args) => this.#read("marks", ...args) as Promise<Mark[]>,
        spans: (...args) => this.#read("spans", ...args) as Promise<Span[]>,
        take: (page, signal, document, records, as, told, time, by) =>
            this.#act(page, signal, document, () => {
                const view = this.#view(page, document)
                const known = view.recorded(records, told)
                return view.take(as, () => this.#client.takeBack(document, known, time, by))
            }),
        online: (_, __, online) => this.#setOnline(online),
        shutdown: (page) => {
            queueMicrotask(() => this.#detach(page))
        },
    }

    #delete(document: string): Promise<void> {
        return new Promise((resolve, reject) => {
            const tell = (failure?: CallError): void => (failure ? reject(failure) : resolve())
            push(this.#deleters, document, tell)
            this.#run(() => this.#client.delete(document))
        })
    }

    /**
     * Removes all that is kept, in memory and in storage. Only a failure is answered, and that there is
     * something that no relay has: the next host's first word tells all pages that it is done.
     */
    async #wipe(evenUnsent: boolean, signal: AbortSignal): Promise<Wiped> {
        const late = AbortSignal.timeout(SEND_MS_MAX)
        let unsent: string[]
        for (;;) {
            await this.#unlessWiped()
            // What pages that are gone left is made, and may be sent.
            await this.#takenUp()
            await Promise.all(this.#making.values())
            if (!evenUnsent && !late.aborted) await this.#until(() => !this.#isSending, late).catch(() => {})
            const unheard = await this.#unheard()
            if (this.#wiping) continue
            unsent = [...new Set([...this.#tally.unsaved, ...unheard])]
            if (evenUnsent || unsent.length === 0 || late.aborted) break
            if (unheard.length === 0 && !this.#isSending) break
            await new Promise((resume) => setTimeout(resume, UNHEARD_MS))
        }
        if (signal.aborted) throw new CallError("failed", UNWANTED)
        if (unsent.length > 0 && !evenUnsent) return { unsent, isWiped: false }
        // In one commit, begun in the task that looked: it happens, or it does not.
        const wiping = this.#storage.commit([{ removeRange: [] }, { put: WIPED, data: encode(hex()) }])
        this.#wiping = wiping.then(
            () => this.#end(unsent),
            () => (this.#wiping = undefined),
        )
        await wiping.catch((error: unknown) => {
            throw new CallError("storage", words(error))
        })
        return new Promise(() => {})
    }

    /** The next host is to begin with nothing. */
    async #end(unsent: readonly string[]): Promise<void> {
        if (this.#closed) return
        this.#client.free()
        this.#stop()
        for (const { name, port } of this.#pages) if (name !== "") port.close()
        this.#pages.clear()
        // What stays of it, no host makes.
        await this.#journal?.commit([{ removeRange: [] }]).catch(() => {})
        this.onwiped?.(unsent, this.#online)
    }

    /** Whether some relay is about to have what it lacks. */
    get #isSending(): boolean {
        const isConnecting = [...this.#connections.values()].some(({ state }) => state === "connecting")
        return this.#tally.state === "saving" || (this.#tally.state === "offline" && isConnecting)
    }

    /** Documents with edits in the journal that are not made: their pages did not come to tell, or cannot. */
    async #unheard(): Promise<string[]> {
        const last = new Map<string, string[]>()
        for (const key of (await this.#journal?.keys([]).catch(() => [])) ?? []) {
            const [author, seq] = key.slice(-2) as [string, string]
            const before = last.get(author)
            if (Number(before?.at(-1) ?? 0) < Number(seq)) last.set(author, key)
        }
        const views = [...this.#shown.values()].flatMap(({ views }) => [...views.values()])
        const isHeard = ([name, key]: [string, string[]]): boolean =>
            views.some(({ author, processed }) => author === name && processed >= Number(key.at(-1)))
        const unheard = [...last].filter((entry) => !isHeard(entry))
        const documents = unheard.map(async ([author, key]) => {
            const entry = (await this.#journal?.load(key)) as unknown as Entry | undefined
            if (entry === undefined || this.#isGone(entry.wiped)) return []
            const stored = await this.#storedEdits(entry.document, { author })
            return stored && stored.seq >= entry.edit.seq ? [] : [entry.document]
        })
        return (await Promise.all(documents)).flat()
    }

    /** Whether a page that had heard of this wipe last was wiped since, with what it edited. */
    #isGone(wiped: string | undefined): boolean {
        return this.#wiped !== undefined && this.#wiped !== wiped
    }

    /** The changes of an object and of what is in it. */
    async #history(signal: AbortSignal, document: string, object: string): Promise<ChangeInfo[]> {
        const listing = ++listings
        const changes: ChangeInfo[] = []
        // What is edited meanwhile is not asked for.
        const heads = this.#client.heads(document)
        let isBegun = false
        const step = (): { done: ChangeInfo[] } | undefined => {
            this.#current = document
            if (!isBegun) this.#client.list(listing, document, object, heads)
            isBegun = true
            const rows = this.#client.listed(listing, LISTED) as HistoryRow[] | undefined
            for (const row of rows ?? []) changes.push(change(row))
            return rows ? undefined : { done: changes }
        }
        try {
            return await this.#inTurns(signal, step)
        } finally {
            if (!this.#closed) this.#client.unlist(listing)
        }
    }

    /**
     * Does what may take long, step by step, until one gives what is `done`. The steps are done in turns
     * of a few milliseconds, between which edits and all else are heard.
     */
    #inTurns<T>(signal: AbortSignal, step: () => { done: T } | undefined): Promise<T> {
        return new Promise((resolve, reject) => {
            const work = (): boolean => {
                try {
                    if (signal.aborted) throw new CallError("failed", UNWANTED)
                    const result = step()
                    if (result) resolve(result.done)
                    return result !== undefined
                } catch (error) {
                    reject(error)
                    return true
                }
            }
            this.#work.push(work)
            this.#turn()
        })
    }

    #turn(): void {
        // What is left of a host that trapped is asked of the next one.
        if (this.#isResting || this.#closed) return
        const end = now() + TURN_MS
        for (let work; now() < end && (work = this.#work.shift());) if (!work()) this.#work.push(work)
        this.#isResting = true
        setTimeout(() => {
            this.#isResting = false
            if (this.#work.length > 0) this.#turn()
        })
    }

    /** Changes a document for a page. Gives the result when the page shows what it did. */
    async #act<T>(page: Page, signal: AbortSignal, document: string, action: () => T): Promise<T> {
        const view = this.#view(page, document)
        let result: T
        this.#acting = view
        try {
            result = this.#must(action)
        } finally {
            this.#acting = undefined
        }
        this.#update(document)
        const isShown = view.whenShown()
        await this.#until(() => this.#view(page, document) !== view || isShown(), signal)
        return result
    }

    /** Does something with the engine of which a result is expected. */
    #must<T>(action: () => T): T {
        const done = this.#run(() => ({ result: action() }))
        if (done === undefined) throw new CallError("closed", "the repo was shut down")
        return done.result
    }

    #view(page: Page, document: string): View {
        const view = this.#shown.get(document)?.views.get(page)
        if (view === undefined) throw new CallError("deleted", DOCUMENT_GONE)
        return view
    }

    /** While both sides edit, a page shows what no heads have: it can be read after that. */
    async #read(
        what: "marks" | "spans",
        page: Page,
        signal: AbortSignal,
        document: string,
        object: string,
    ): Promise<unknown> {
        await this.#until(() => this.#view(page, document).shown !== undefined, signal)
        const view = this.#view(page, document)
        return this.#client[what](document, view.objectId(object), view.at)
    }

    #find(document: string, signal: AbortSignal): Promise<void> {
        return new Promise((resolve, reject) => {
            if (this.#avoids(document)) throw new CallError("damaged", AVOIDED)
            const tell = (failure?: CallError): void => {
                signal.removeEventListener("abort", abort)
                if (failure) reject(failure)
                else resolve()
            }
            const abort = (): void => {
                const others = this.#finders.get(document)?.filter((other) => other !== tell) ?? []
                if (others.length > 0) this.#finders.set(document, others)
                else this.#finders.delete(document)
                this.#letGoOf(document)
                reject(new CallError("failed", UNWANTED))
            }
            push(this.#finders, document, tell)
            signal.addEventListener("abort", abort)
            this.#current = document
            this.#run(() => this.#client.find(document))
        })
    }

    #avoids(document: string): boolean {
        return this.#options.avoid?.includes(document) === true
    }

    /** Goes on where an earlier host ended. */
    #resume(page: Page, document: string, resume: Resume, stored?: StoredEdits): void {
        const { author, base, unstored, edits, renamed } = resume
        for (const names of renamed) this.#client.rename(document, names)
        const last = stored && stored.seq > base.seq ? stored : base
        const known = last.heads.length > 0 && this.#client.knowsHeads(document, [...last.heads])
        const [other, earlier] = this.#earlier(page, document, author)
        const view = this.#show(page, document, this.#client.heads(document))
        view.author = author
        if (other && earlier && earlier.processed > last.seq) {
            view.takeOver(earlier)
            this.#shown.get(document)?.views.delete(other)
        } else {
            if (stored) view.tell(stored, unstored !== undefined && stored.seq >= unstored)
            view.goOn(last, known)
            // What is not known was not stored, or wiped: all edits are tried on what there is.
            if (!known) view.processed = Math.max(stored?.seq ?? 0, (unstored ?? base.seq + 1) - 1)
        }
        for (const edit of edits) this.#edit(page, document, edit, 0, 0)
        this.#update(document)
        this.#tellStatus(document)
    }

    /** Of a page that was taken for gone: its view, in which edits may be made and not stored. */
    #earlier(page: Page, document: string, author: string): [Page?, View?] {
        const views = [...(this.#shown.get(document)?.views ?? [])]
        return views.find(([other, view]) => other !== page && view.author === author) ?? []
    }

    /**
     * What the last host stored of a page's edits: those that it did not tell must not be made again,
     * and others may name what they made.
     */
    async #storedEdits(document: string, { author }: Pick<Resume, "author">): Promise<StoredEdits | undefined> {
        const data = await this.#storage.load(["views", document, author])
        // Earlier versions kept no records.
        return data
            ? Object.assign({ records: [], taken: [] }, (JSON.parse(decode(data), untagged) as Untold).stored)
            : undefined
    }
}

/** The instance of this thread. */
let started: Promise<unknown> | undefined

/** Until the server begins to answer, and until the module is here: else another tab may try. */
const ANSWER_MS_MAX = 20_000
const MODULE_MS_MAX = 300_000

function start(module: unknown): Promise<unknown> {
    started ??= compiled(module).then((module) => initSync({ module }))
    started.catch(() => (started = undefined))
    return started
}

async function compiled(given: unknown): Promise<WebAssembly.Module> {
    const module = await given
    if (module instanceof WebAssembly.Module) return module
    if (typeof module !== "string") return WebAssembly.compile(module as BufferSource)
    const late = new AbortController()
    const within = (ms: number): ReturnType<typeof setTimeout> =>
        setTimeout(() => late.abort(new Error(`cannot load ${String(module)} within ${ms / 1000} s`)), ms)
    let timer = within(ANSWER_MS_MAX)
    try {
        const response = await fetch(module, { signal: late.signal }).catch((error: unknown) => {
            throw late.signal.aborted ? error : new Error(`cannot load ${module}: ${words(error)}`)
        })
        if (!response.ok) throw new Error(`cannot load ${response.url}: ${response.status} ${response.statusText}`)
        clearTimeout(timer)
        timer = within(MODULE_MS_MAX)
        // Nothing else is compiled while it comes.
        if (response.headers.get("content-type") === "application/wasm") {
            return await WebAssembly.compileStreaming(response)
        }
        return await WebAssembly.compile(await response.arrayBuffer())
    } finally {
        clearTimeout(timer)
    }
}

/** A value under `["views", document, author]`. */
interface Untold {
    readonly stored: StoredEdits
    /** In milliseconds since 1970. */
    readonly at: number
}

/** Relays that no page wants any more are named so long: a tab may be reloading, or not heard yet. */
const AWAY_MS = 10_000

/** A page that takes longer to give a token may be frozen. */
const TOKEN_MS_MAX = 4_000

/** Between two times that a page is asked for another token than those that were refused. */
const RENEW_MS_MIN = 1_000
const RENEW_MS_MAX = 60_000

/** What is being sent is waited for so long before it is told that no relay has it. */
const SEND_MS_MAX = 5_000

/** Before a wipe looks again for what pages did not come to tell. */
const UNHEARD_MS = 50

/** Nobody cancels it. */
const NOBODY = new AbortController().signal

/** What is said of a page's edits is kept so long after the page has let go of the document. */
const JOURNAL_MS = 60_000

/** Edits at which the engine traps are tried for so long. */
const TRIED_MS = 10 * 60_000

/** A tab that was closed without a word leaves one behind; after so long nobody asks for it. */
const UNTOLD_MS = 24 * 60 * 60 * 1000

function untoldOf({ document, author, untold }: View): StorageWrite[] {
    if (author === undefined || untold === undefined) return []
    const value: Untold = { stored: untold, at: Date.now() }
    return [{ put: ["views", document, author], data: encode(JSON.stringify(value, tagged)) }]
}

/** What JSON does not hold, in a form that nothing else in an operation has. */
function tagged(this: Record<string, unknown>, key: string, value: unknown): unknown {
    const is = this[key]
    if (is instanceof Date) return { date: is.getTime() }
    if (is instanceof Uint8Array) return { bytes: [...is] }
    if (typeof is === "bigint") return { bigint: String(is) }
    return typeof is === "number" && !Number.isFinite(is) ? { number: String(is) } : value
}

function untagged(_: string, value: unknown): unknown {
    const { date, bytes, bigint, number } = (value ?? {}) as Record<string, never>
    if (date !== undefined) return new Date(date)
    if (bytes) return Uint8Array.from(bytes)
    if (number) return Number(number)
    return bigint ? BigInt(bigint) : value
}

async function forgetUntold(storage: Storage, journal: Storage | undefined): Promise<void> {
    const left = journal === undefined ? [] : await journal.keys([]).catch(() => undefined)
    // What else would tell that these edits are stored?
    if (left === undefined) return
    const authors = new Set(left.map((key) => key[1]))
    const old = (await storage.loadRange(["views"])).filter(({ key, data }) => {
        return (JSON.parse(decode(data)) as Untold).at < Date.now() - UNTOLD_MS && !authors.has(key[2])
    })
    // Else the next host does.
    if (old.length > 0) await storage.commit(old.map(({ key }) => ({ remove: key }))).catch(() => {})
}

type HistoryRow = [string, string, number, number, string | undefined, string[], number, string | undefined, boolean]

function change([hash, actor, seq, time, message, deps, operations, author, isOwn]: HistoryRow): ChangeInfo {
    const told = { hash, actor, seq, time, deps, operations, isOwn }
    return { ...told, ...(message !== undefined && { message }), ...(author !== undefined && { author }) }
}

function status({ state, reason }: { state: DocumentStatus["state"]; reason?: string }): DocumentStatus {
    return reason === undefined ? { state } : { state, reason }
}

function refusal(relay: string, reason: string | undefined): ConnectionStatus {
    return reason === undefined ? { relay, state: "offline" } : { relay, state: "refused", reason }
}

/** Calls about documents that the page need not have open. */
const UNOPENED = "create open resume import clone export delete fetch".split(" ")

/** The documents that a call is about, as far as the page that calls may have them open. */
function documentsOf(name: CallName, [first, second]: readonly unknown[]): string[] {
    if (typeof first !== "string") return []
    if (name === "clone") return [second as string]
    const document = documentId(first)
    if (document === undefined) return []
    return name === "merge" ? [document, second as string] : [document]
}

function parse(url: string): string {
    const id = documentId(url)
    if (id === undefined) throw new CallError("failed", `${JSON.stringify(url)} is no url of a document`)
    return id
}

/** What ends an instance of the module: a trap, or a stack that is too small. */
function isTrap(error: unknown): boolean {
    if (error instanceof WebAssembly.RuntimeError) return true
    return error instanceof Error && /call stack|too much recursion/.test(error.message)
}

/** The document that a frame names, found without decoding the frame: a text behind its key. */
function documentIn(frame: Uint8Array): string | undefined {
    const key = encode("jdocumentId")
    const starts = (at: number): boolean => key.every((byte, i) => frame[at + i] === byte)
    for (let at = frame.indexOf(key[0]!); at >= 0; at = frame.indexOf(key[0]!, at + 1)) {
        if (!starts(at)) continue
        let from = at + key.length
        const head = frame[from++] ?? 0
        const length = head === 0x78 ? (frame[from++] ?? 0) : head - 0x60
        return documentId(decode(frame.subarray(from, from + length)))
    }
    return undefined
}

function push<T>(map: Map<string, T[]>, key: string, value: T): void {
    const values = map.get(key)
    if (values) values.push(value)
    else map.set(key, [value])
}

/** Keeps what is being done under its key, until that is done. */
function whileDone(doing: Map<string, Promise<unknown>>, key: string, done: Promise<unknown>): void {
    const all = Promise.all([doing.get(key), done.catch(() => {})])
    doing.set(key, all)
    void all.then(() => doing.get(key) === all && doing.delete(key))
}

function take<T>(map: Map<string, T[]>, key: string): T[] {
    const taken = map.get(key) ?? []
    map.delete(key)
    return taken
}

function now(): number {
    return performance.now()
}

function encode(text: string): Uint8Array {
    return new TextEncoder().encode(text)
}

function decode(data: Uint8Array): string {
    return new TextDecoder().decode(data)
}

const FORMAT = ["client", "format"]
const STORAGE_ID = ["client", "id"]
const RELAYS = ["client", "relays"]
const WIPED = ["client", "wiped"]

function namesOf(relays: readonly string[]): StorageWrite {
    return { put: RELAYS, data: encode(JSON.stringify(relays)) }
}

/** The version of the database's layout. */
const VERSION = 2

/** What a later version wrote, this one might take for damage. */
async function checkFormat(storage: Storage): Promise<void> {
    const stored = await storage.load(FORMAT)
    const found = stored ? Number(decode(stored)) : 0
    if (found > VERSION) {
        throw new Error(`a newer version of this app changed the database, to format ${found}: reload the page`)
    }
    if (found < VERSION) await storage.save(FORMAT, encode(`${VERSION}`))
}

/** A name that the storage keeps, drawn the first time. */
async function named(storage: Storage, key: string[]): Promise<string> {
    const stored = await storage.load(key)
    if (stored !== undefined) return decode(stored)
    const name = hex()
    await storage.save(key, encode(name))
    return name
}

/**
 * The outbox speaks for the relays that were named. What another one has is not known, so all
 * documents are put into the outbox for it, and their names given.
 */
async function nameRelays(
    storage: Storage,
    relays: readonly string[],
    commit = (writes: StorageWrite[]): Promise<void> => storage.commit(writes),
): Promise<string[]> {
    const before = await namedRelays(storage)
    const isNew = relays.some(isNoneOf(before))
    if (!isNew && before.length === relays.length) return []
    const writes = [namesOf(relays)]
    const ids = isNew ? await documentsIn(storage) : []
    for (const id of ids) writes.push({ put: ["outbox", id], data: new Uint8Array() })
    await commit(writes)
    return ids
}

async function documentsIn(storage: Storage): Promise<string[]> {
    const keys = await storage.keys(["documents"])
    return [...new Set(keys.map((documentKey) => documentKey[1] ?? ""))]
}

async function namedRelays(storage: Storage): Promise<string[]> {
    const stored = await storage.load(RELAYS)
    return stored ? (JSON.parse(decode(stored)) as string[]) : []
}

const isNoneOf =
    (names: readonly string[]) =>
    (name: string): boolean =>
        !names.includes(name)

function newPage(name: string, port: Port<HostMessage, PageMessage>): Page {
    return { name, port, calls: new Map(), resuming: new Map(), lost: new Map(), asked: new Map() }
}
