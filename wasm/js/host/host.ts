// A host: the one place of an origin where the documents of a database are. It runs the engine,
// owns the storage and the connections to relays, and serves the pages that attach to it.
//
// It lives in a Worker of one page, or in the page itself where there are no Workers. When that
// page is closed, another one starts the next host.
//
// Here its parts are put together: what the engine wants goes to them, and so does what pages say.

import { Client } from "../../dist/core/reconverge.js"
import { hex } from "../names.js"
import type { Storage } from "../storage.js"
import { Answers, documentsOf } from "./answers.js"
import { Connections } from "./connections.js"
import { checkFormat, isNoneOf, lastWipe, namedRelays, nameRelays, outboxIn, storageIdOf } from "./database.js"
import { Departed, type IsAlive } from "./departed.js"
import { Documents } from "./documents.js"
import { Engine, now } from "./engine.js"
import { CallError, SHUT_DOWN } from "./errors.js"
import { startModule } from "./module.js"
import type { Output } from "./output.js"
import { Page, Pages } from "./page.js"
import type { HostMessage, HostOptions, PageMessage, Port } from "./protocol.js"
import { EditRecords } from "./records.js"
import { Relays } from "./relays.js"
import type { MakeWebSocket } from "./socket.js"
import { Statuses } from "./statuses.js"
import { Store } from "./store.js"
import { Turns } from "./turns.js"
import { Wanted, type Wishes } from "./wanted.js"
import { Wiping } from "./wiping.js"

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

export class Host {
    #surroundings: Surroundings
    /** Names the last time that all was removed. */
    #wiped: string | undefined
    #engine: Engine
    #pages = new Pages()
    #wanted = new Wanted()
    #statuses: Statuses
    #documents: Documents
    #store: Store
    #connections: Connections
    #relays: Relays
    #departed: Departed
    #answers: Answers
    #attached: (page: Page) => void = () => {}
    /**
     * Called when the engine trapped; this host is of no further use. Names the document on which it
     * did, if that is known.
     */
    ontrap: ((document: string | undefined, error: unknown) => void) | undefined
    /** Called when all was wiped; this host is of no further use, and the next one tells the pages. */
    onwiped: ((unsent: readonly string[], online: boolean) => void) | undefined

    static async start(surroundings: Surroundings): Promise<Host> {
        const { options, storage, journal, module } = surroundings
        await startModule(module)
        if (options.keeps) await checkFormat(storage)
        const storageId = options.keeps ? await storageIdOf(storage) : ""
        // Other tabs, which may want these, are not heard yet.
        const away = journal === undefined ? [] : (await namedRelays(storage)).filter(isNoneOf(options.relays))
        const relays = [...options.relays, ...away]
        // Without room for the names, what is stored can be read all the same.
        const isNamed = await nameRelays(storage, relays).then(
            () => true,
            () => false,
        )
        const records = new EditRecords(storage, journal)
        await records.forgetOld()
        const outbox = await outboxIn(storage)
        const wiped = await lastWipe(storage)
        const client = new Client(options.peerId, storageId, hex(), [...options.relays], Math.random())
        const host = new Host(client, surroundings, records, outbox, wiped)
        host.#relays.use(options.relays, away)
        if (!isNamed) host.#relays.nameLater()
        storage.onlost = () => void host.#store.writeAgain(storageId, host.#relays.all)
        host.#engine.run(() => host.#engine.client.outbox(now(), outbox.filter(isNoneOf(options.avoid ?? []))))
        return host
    }

    private constructor(
        client: Client,
        surroundings: Surroundings,
        records: EditRecords,
        outbox: readonly string[],
        wiped: string | undefined,
    ) {
        const { options, storage, journal, webSocket, online = true } = surroundings
        const { avoid = [] } = options
        this.#surroundings = surroundings
        this.#wiped = wiped
        const engine = new Engine(client, {
            output: (output) => this.#perform(output),
            settled: () => this.#tellSum(),
            stopped: () => {
                this.#relays.stop()
                this.#connections.stop()
            },
            trapped: (document, error) => {
                for (const { port } of this.#pages) port.close()
                this.ontrap?.(document, error)
            },
        })
        this.#engine = engine
        const pages = this.#pages
        const wanted = this.#wanted
        const statuses = (this.#statuses = new Statuses(outbox))
        const documents = (this.#documents = new Documents(engine, pages, statuses, records, avoid))
        const store = (this.#store = new Store({ engine, storage, pages, documents, records, statuses, avoid }))
        const connections = (this.#connections = new Connections(engine, pages, wanted, webSocket, online))
        this.#relays = new Relays({ engine, pages, storage, store, wanted, connections, avoid })
        const departed = (this.#departed = new Departed({
            ...{ engine, pages, storage, journal, documents, records, avoid, wiped },
            resume: (...args) => this.#answers.resume(...args),
        }))
        const ended = (unsent: readonly string[]): Promise<void> => this.#end(unsent)
        this.#answers = new Answers({
            ...{ engine, pages, storage, store, documents, records, statuses, departed, connections },
            turns: new Turns(engine),
            wiping: new Wiping({ engine, store, departed, statuses, connections, ended }),
            detach: (page) => this.#detach(page),
        })
        // It can be asked when it listens.
        const own = new Promise<Page>((resolve) => (this.#attached = resolve))
        wanted.add(this, options, async (relay) => this.#ask(await own, relay))
    }

    /** Serves a page. Gives what ends that. */
    attach(port: Port<HostMessage, PageMessage>, name = "", wishes?: Wishes): () => void {
        const page = new Page(name, port)
        this.#pages.add(page)
        const wiped = this.#wiped
        // On the same port as to the host before, to which it speaks until it hears of this one.
        let isHeard = name !== ""
        port.onmessage = (message) => {
            isHeard ||= message.type === "hello" && message.wiped === wiped
            if (isHeard) this.#engine.heed(() => this.#message(page, message))
        }
        port.post({ type: "welcome", wiped, unsent: this.#surroundings.unsent ?? [] })
        if (wishes !== undefined && name !== "") {
            this.#wanted.add(page, wishes, (relay) => this.#ask(page, relay))
            this.#relays.want()
            for (const relay of wishes.relays) void this.#connections.retry(relay)
        }
        return () => this.#detach(page)
    }

    /**
     * Makes what pages that are gone edited in their last moment; what is opened from now on is opened
     * after that. Gives the names of the others.
     */
    takeUp(living: IsAlive | Promise<IsAlive>): Promise<string[]> {
        return this.#departed.takeUp(living)
    }

    /** There may be a network again, or somebody looks at a page again. */
    wake(isOtherNetwork = false): void {
        this.#connections.wake(isOtherNetwork)
    }

    /** Ends the host. What is not stored is tried to be. */
    async close(): Promise<void> {
        await this.#store.wiped()
        if (!this.#engine.isStopped) await this.#store.flush().catch(() => {})
        this.#engine.stop()
        const closed = new CallError("closed", SHUT_DOWN)
        this.#engine.giveUp(closed)
        this.#documents.giveUp(closed)
        this.#surroundings.storage.close()
    }

    /** The next host is to begin with nothing. */
    async #end(unsent: readonly string[]): Promise<void> {
        if (this.#engine.isStopped) return
        this.#engine.client.free()
        this.#engine.stop()
        for (const { name, port } of this.#pages) if (name !== "") port.close()
        this.#pages.clear()
        // What stays of it, no host makes.
        await this.#surroundings.journal?.commit([{ removeRange: [] }]).catch(() => {})
        this.onwiped?.(unsent, this.#connections.isOnline)
    }

    // What the engine wants.

    #perform(output: Exclude<Output, { type: "idle" }>): void {
        switch (output.type) {
            case "connect":
                return this.#connections.connect(output.relay, output.connection)
            case "disconnect":
                return this.#connections.disconnect(output.connection)
            case "send": {
                const { connection, bytes, reads } = output
                const sent = (): void => this.#engine.heed(() => this.#engine.client.sent(now(), connection, reads))
                // Later, because the engine is being polled.
                this.#connections.socket(connection)?.send(bytes, () => queueMicrotask(sent))
                return
            }
            case "ping": {
                // A browser sends no pings. A relay that does not answer a message either is gone if it
                // owes us a word, or what was sent waits in the socket.
                const { connection, bytes } = output
                const socket = this.#connections.socket(connection)
                if (bytes) return socket?.ping(bytes)
                const isFlushed = socket?.isFlushed ?? false
                if (isFlushed && !this.#documents.isSaving) this.#engine.client.pong(now(), connection)
                return
            }
            case "load":
                return void this.#store.load(output.document)
            case "store":
                return void this.#store.store(output.document, output.writes)
            case "storeFailed": {
                const { document, error } = output
                this.#statuses.failed(document, error)
                this.#documents.tellStatus(document)
                this.#documents.notDeleted(document, new CallError("storage", error))
                for (const view of this.#documents.views(document)) view.update()
                return
            }
            case "flushed":
                if (this.#statuses.flushed(output.document)) this.#documents.tellStatus(output.document)
                for (const view of this.#documents.views(output.document)) {
                    view.stored()
                    view.update()
                }
                return
            case "found": {
                const { document, code, error } = output
                return this.#documents.found(document, code && new CallError(code, error ?? code))
            }
            case "changed":
                return this.#documents.changed(output.document)
            case "status":
                this.#statuses.set(output)
                return this.#documents.setStatus(output)
            case "ephemeral":
            case "takenOut":
                return this.#documents.post(output.document, output)
            case "salvaged": {
                const { document, error } = output
                const message = `local storage: ${error}; ${document} begins anew with what is whole of it, and relays are asked for the rest`
                return this.#pages.tell({ type: "problem", message })
            }
            case "current":
                return this.#answers.current(output.asked, output.why)
            case "added":
                return this.#pages.tell({ ...output, type: "listed", isHere: true })
            case "deleted":
                this.#pages.tell({ ...output, type: "listed", isHere: false })
                this.#statuses.delete(output.document)
                return this.#documents.deleted(output.document)
        }
    }

    /** How safe all documents are, if that changed. */
    #tellSum(): void {
        const status = this.#statuses.next()
        if (status) this.#pages.tell({ type: "sum", status })
    }

    // What pages say.

    #message(page: Page, message: PageMessage): void {
        if (message.type === "call") {
            const { call, name, args } = message
            const controller = new AbortController()
            page.calls.set(call, controller)
            const answer = (): Promise<void> => this.#answers.answer(page, message, controller.signal)
            const isOfAll = name === "flush" || name === "wipe"
            const documents = isOfAll ? page.resuming : documentsOf(name, args)
            return page.inOrder(this.#engine, documents, answer, name === "resume")
        }
        const documents = "document" in message ? [message.document] : []
        page.inOrder(this.#engine, documents, () => this.#heard(page, message))
    }

    #heard(page: Page, message: Exclude<PageMessage, { type: "call" }>): void {
        switch (message.type) {
            case "cancel":
                return page.calls.get(message.call)?.abort()
            case "edit":
                return this.#documents.edit(page, message)
            case "seen":
                this.#documents.viewOf(page, message.document)?.seen(message.update)
                return this.#documents.update(message.document)
            case "broadcast": {
                const { document, message: content } = message
                this.#engine.run(() => this.#engine.client.broadcast(document, content))
                const sender = this.#surroundings.options.peerId
                // The other pages of this browser hear it without a relay.
                return this.#documents.post(document, { type: "ephemeral", document, sender, message: content }, page)
            }
            case "release":
                page.lost.delete(message.document)
                return this.#documents.release(page, message.document)
            case "wake":
                return this.wake(message.isOtherNetwork)
            case "bye":
                return this.#detach(page)
            case "hello":
                // Its Worker said nothing to it that counts before.
                if (page.name === "") this.#attached(page)
                page.port.post(this.#connections.message)
                return page.port.post({ type: "sum", status: this.#statuses.sum })
            case "token":
                return page.tokens.give(message.relay, message.token, message.failure)
        }
    }

    #ask(page: Page, relay: string): Promise<string> {
        return page.tokens.ask(relay, () => void this.#connections.retry(relay))
    }

    #detach(page: Page): void {
        if (!this.#pages.delete(page)) return
        page.end()
        this.#wanted.remove(page)
        if (!this.#engine.isStopped) this.#relays.want()
        const isKept = this.#surroundings.journal !== undefined && page.name !== ""
        page.isLeaving = isKept
        let take = (): void => {}
        const turn = new Promise<void>((resolve) => (take = resolve))
        if (isKept) this.#departed.takeUpOf(page, turn)
        // What it said before it went counts.
        page.inOrder(this.#engine, page.resuming, () => (isKept ? take() : this.#documents.releaseAll(page)))
    }
}
