// The answers to what pages ask for.

import { documentId, type Client } from "../../dist/core/reconverge.js"
import type { Operation } from "../operations.js"
import type { Storage } from "../storage.js"
import type { Mark, Path, QuarantinedChange, Span } from "../types.js"
import type { Connections } from "./connections.js"
import { documentsIn, isDocumentIn } from "./database.js"
import type { Departed } from "./departed.js"
import type { Documents } from "./documents.js"
import { isTrap, type Engine } from "./engine.js"
import { CallError, SHUT_DOWN, UNWANTED } from "./errors.js"
import { historyOf } from "./history.js"
import type { Page, Pages } from "./page.js"
import {
    words,
    type CallName,
    type Calls,
    type Failure,
    type Opened,
    type PageMessage,
    type Resume,
} from "./protocol.js"
import type { EditRecords } from "./records.js"
import type { Statuses } from "./statuses.js"
import type { Store } from "./store.js"
import type { Turns } from "./turns.js"
import type { Wiping } from "./wiping.js"

type Call = Extract<PageMessage, { type: "call" }>

/** What answers need of their host. */
export interface AnswersOptions {
    readonly engine: Engine
    readonly pages: Pages
    readonly storage: Storage
    readonly store: Store
    readonly documents: Documents
    readonly records: EditRecords
    readonly statuses: Statuses
    readonly departed: Departed
    readonly connections: Connections
    readonly turns: Turns
    readonly wiping: Wiping
    /** A page is gone. */
    detach(page: Page): void
}

/** Nobody cancels it. */
const NOBODY = new AbortController().signal

/** Calls about documents that the page need not have open. */
const UNOPENED = "create open resume import clone export delete fetch".split(" ")

export class Answers {
    #options: AnswersOptions
    #engine: Engine
    #client: Client
    #documents: Documents
    /** Why documents may be old, by the number of the question; empty if they are current. */
    #current = new Map<number, string | undefined>()

    constructor(options: AnswersOptions) {
        this.#options = options
        this.#engine = options.engine
        this.#client = options.engine.client
        this.#documents = options.documents
    }

    async answer(page: Page, { call, name, args }: Call, signal: AbortSignal): Promise<void> {
        const { pages } = this.#options
        let answer: { value?: unknown; failure?: Failure }
        try {
            if (this.#engine.isStopped) throw new CallError("closed", SHUT_DOWN)
            // A page's edits are worth more than its presence.
            if (signal.aborted && name !== "resume") throw new CallError("failed", UNWANTED)
            const about = documentsOf(name, args)
            const lost = about.map((document) => page.lost.get(document))
            if (!["resume", "open", "delete"].includes(name)) for (const failure of lost) if (failure) throw failure
            if (!UNOPENED.includes(name)) for (const document of about) this.#documents.view(page, document)
            const method = this.#calls[name] as (page: Page, signal: AbortSignal, ...args: unknown[]) => unknown
            answer = { value: await method(page, signal, ...args) }
        } catch (error) {
            const code = error instanceof CallError ? error.code : "failed"
            answer = { failure: { code, message: words(error) } }
        }
        page.calls.delete(call)
        if (pages.has(page)) page.port.post({ type: "result", call, ...answer })
        // It left while a document was opened for it.
        else if (page.resuming.length === 0 && !page.isLeaving) this.#documents.releaseAll(page)
    }

    /** A relay answered, or cannot, whether a document is current. */
    current(asked: number, why: string | undefined): void {
        this.#current.set(asked, why)
    }

    /** Goes on with a document where an earlier host ended. */
    async resume(page: Page, document: string, resume: Resume): Promise<void> {
        const { pages, departed, records } = this.#options
        try {
            // Else what is made of it meanwhile would be made twice.
            if (pages.has(page)) await departed.takenUpOf(page)
            const stored = await records.of(document, resume.author)
            // Also if the page goes meanwhile.
            await this.#documents.find(document, NOBODY)
            this.#documents.resume(page, document, resume, stored)
            page.lost.delete(document)
        } catch (error) {
            if (error instanceof CallError && error.code === "deleted" && pages.has(page))
                return page.port.post({ type: "deleted", document })
            page.lost.set(document, error instanceof CallError ? error : new CallError("failed", words(error)))
            throw error
        }
    }

    /**
     * A document that did not exist, unless the last host made it and did not come to answer. It is
     * stored first: a journal is of no use to one that nobody has.
     */
    async #made(page: Page, signal: AbortSignal, name: string, make: (document: string) => void): Promise<Opened> {
        const { storage, statuses } = this.#options
        const document = parse(name)
        const isMade = await isDocumentIn(storage, document).catch(() => false)
        if (isMade) await this.#documents.find(document, signal)
        else this.#engine.must(() => make(document))
        const isStored = (): boolean => this.#client.isStored(document)
        await this.#engine.until(() => isStored() || statuses.storageError(document) !== undefined, signal)
        return this.#documents.open(page, document)
    }

    /** Finds a document with all that pages edited in it that are gone. Gives its name. */
    async #found(url: string, signal: AbortSignal): Promise<string> {
        const document = parse(url)
        await this.#options.departed.takenUp(document)
        await this.#documents.find(document, signal)
        return document
    }

    /** While both sides edit, a page shows what no heads have: it can be read after that. */
    async #read(
        what: "marks" | "spans",
        page: Page,
        signal: AbortSignal,
        document: string,
        object: string,
    ): Promise<unknown> {
        await this.#engine.until(() => this.#documents.view(page, document).shown !== undefined, signal)
        const view = this.#documents.view(page, document)
        return this.#client[what](document, view.objectId(object), view.at)
    }

    #calls: {
        [N in CallName]: (page: Page, signal: AbortSignal, ...args: Calls[N][0]) => Calls[N][1] | Promise<Calls[N][1]>
    } = {
        create: (page, signal, name, operations, time, by) =>
            this.#made(page, signal, name, (document) => this.#client.create(document, [...operations], time, by)),
        open: async (page, signal, url) => {
            const document = await this.#found(url, signal)
            page.lost.delete(document)
            return this.#documents.viewOf(page, document) ? undefined : this.#documents.open(page, document)
        },
        resume: (page, _, document, resume) => this.resume(page, document, resume),
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
        export: async (_, signal, url) => {
            const document = await this.#found(url, signal)
            const bytes = this.#client.save(document)
            this.#documents.letGoOf(document)
            return bytes
        },
        delete: async (_, signal, url) => {
            const document = parse(url)
            const found = this.#documents.find(document, signal).catch((error: unknown) => {
                if (!(error instanceof CallError) || !["unavailable", "damaged"].includes(error.code)) throw error
            })
            await found
            await this.#documents.delete(document)
        },
        merge: (page, signal, document, other) =>
            this.#documents.act(page, signal, document, () => this.#client.merge(document, other)),
        flush: () => this.#options.store.flush(),
        documents: () => documentsIn(this.#options.storage),
        fetch: async (_, signal, url) => {
            const document = await this.#found(url, signal)
            // It stays in memory until then.
            await this.#engine.until(() => {
                const failure = this.#options.statuses.storageError(document)
                if (failure !== undefined) throw new CallError("storage", failure)
                return this.#client.isStored(document)
            }, signal)
        },
        wipe: (_, signal, evenUnsent) => this.#options.wiping.wipe(evenUnsent, signal),
        current: async (page, signal, document, ms) => {
            const { connections } = this.#options
            const asked = this.#engine.must(() => this.#client.askCurrent(document))
            let isLate = false
            const timer = setTimeout(() => this.#engine.heed(() => (isLate = true)), Math.min(ms, 2 ** 31 - 1))
            const is = (): boolean => {
                this.#documents.view(page, document)
                const isVain = isLate || !connections.isOnline
                const why = this.#current.get(asked) ?? (isVain ? "no relay answers" : undefined)
                if (why) throw new CallError("unavailable", `the document may be old: ${why}`)
                return why === ""
            }
            await this.#engine.until(is, signal).finally(() => {
                clearTimeout(timer)
                this.#engine.heed(() => this.#client.withdraw(asked))
                this.#current.delete(asked)
            })
            await this.#documents.whenShown(page, signal, document)
        },
        synced: (page, signal, document, level) => {
            this.#documents.view(page, document)
            // What is edited meanwhile is not waited for.
            const heads = this.#client.heads(document)
            const commits = this.#documents.commits(document) + this.#client.commitsDue(document)
            const is = (): boolean => {
                this.#documents.view(page, document)
                if (level === "local") return this.#documents.commits(document) >= commits
                // Of what had to be made again, these heads tell nothing.
                const now = this.#client.status(document) as { state?: string } | undefined
                const all = level === "replicated"
                const isAll = all ? this.#client.isEverywhere(document) : now?.state === "saved"
                return isAll || this.#client.isAcknowledged(document, heads, all)
            }
            return this.#engine.until(is, signal)
        },
        heads: (page, _, document) => this.#documents.view(page, document).heads,
        state: (_, signal, document, heads) =>
            this.#options.turns.take(signal, () => ({
                done: this.#client.state(document, [...heads]) as Operation[],
            })),
        diff: (_, signal, document, before, after) =>
            this.#options.turns.take(signal, () => ({
                done: this.#client.diff(document, [...before], [...after]) as [Path, Operation[]][],
            })),
        history: (page, signal, document, name) => {
            const object = this.#documents.view(page, document).objectId(name)
            return historyOf(this.#engine, this.#options.turns, signal, document, object)
        },
        actor: (_, __, document, by) => this.#client.actor(document, by),
        conflicts: (page, _, document, name, prop) => {
            const view = this.#documents.view(page, document)
            const object = view.objectId(name)
            const place = typeof prop === "number" ? view.place(object, prop) : prop
            return this.#client.conflicts(document, object, place) as Record<string, unknown> | undefined
        },
        restore: (page, signal, document, heads, { time, message, by }, as, ...place) =>
            this.#documents.act(page, signal, document, () => {
                const view = this.#documents.view(page, document)
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
            await this.#engine.until(() => this.#client.isStored(document), signal)
            return this.#client.quarantined(document) as QuarantinedChange[]
        },
        changeAt: async (page, signal, document, heads, { operations, time, message, by }) => {
            const make = (): string | undefined =>
                this.#client.change(document, [...operations], new Map(), time, message, [...heads], false, by)
            const hash = await this.#documents.act(page, signal, document, make)
            return hash === undefined ? heads : [hash]
        },
        cursor: (page, _, document, name, index) => {
            const view = this.#documents.view(page, document)
            const object = view.objectId(name)
            return this.#client.cursor(document, object, view.place(object, index))
        },
        position: (page, _, document, name, cursor) => {
            const view = this.#documents.view(page, document)
            const object = view.objectId(name)
            const position = this.#client.position(document, object, cursor)
            if (position === undefined) throw new CallError("failed", `${JSON.stringify(cursor)} is no cursor of this`)
            return view.place(object, position, true)
        },
        marks: (...args) => this.#read("marks", ...args) as Promise<Mark[]>,
        spans: (...args) => this.#read("spans", ...args) as Promise<Span[]>,
        take: (page, signal, document, records, as, told, time, by) =>
            this.#documents.act(page, signal, document, () => {
                const view = this.#documents.view(page, document)
                const known = view.recorded(records, told)
                return view.take(as, () => this.#client.takeBack(document, known, time, by))
            }),
        online: (_, __, online) => this.#options.connections.setOnline(online),
        shutdown: (page) => {
            queueMicrotask(() => this.#options.detach(page))
        },
    }
}

/** The documents that a call is about, as far as the page that calls may have them open. */
export function documentsOf(name: CallName, [first, second]: readonly unknown[]): string[] {
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
