// The documents that pages look for and have open, and the views that they have of them.

import type { Operation } from "../operations.js"
import type { Heads } from "../types.js"
import type { Engine } from "./engine.js"
import { AVOIDED, CallError, DOCUMENT_GONE, UNWANTED } from "./errors.js"
import { push, take } from "./lists.js"
import type { StatusOutput } from "./output.js"
import type { Page, Pages } from "./page.js"
import type { DocumentStatus, HostMessage, Opened, PageMessage, Resume, StoredEdits } from "./protocol.js"
import type { EditRecords } from "./records.js"
import { status, type Statuses } from "./statuses.js"
import { View } from "./view.js"

/** A document that some page has open. */
interface Shown {
    readonly views: Map<Page, View>
    status: DocumentStatus
    /** How many commits of it were done. */
    commits: number
}

/** An edit, and of what its page knew when it made it. */
type EditMessage = Omit<Extract<PageMessage, { type: "edit" }>, "type">

/** Hears what became of what it waits for. */
type Tell = (failure?: CallError) => void

export class Documents {
    #engine: Engine
    #pages: Pages
    #statuses: Statuses
    #records: EditRecords
    #avoid: readonly string[]
    #shown = new Map<string, Shown>()
    #finders = new Map<string, Tell[]>()
    #deleters = new Map<string, Tell[]>()
    /** The view whose page asked for what is being done. */
    #acting: View | undefined

    /** Those to `avoid` are not opened. */
    constructor(engine: Engine, pages: Pages, statuses: Statuses, records: EditRecords, avoid: readonly string[]) {
        this.#engine = engine
        this.#pages = pages
        this.#statuses = statuses
        this.#records = records
        this.#avoid = avoid
    }

    // Looking for documents, and deleting them.

    find(document: string, signal: AbortSignal): Promise<void> {
        return new Promise((resolve, reject) => {
            if (this.#avoid.includes(document)) throw new CallError("damaged", AVOIDED)
            const tell: Tell = (failure) => {
                signal.removeEventListener("abort", abort)
                if (failure) reject(failure)
                else resolve()
            }
            const abort = (): void => {
                const others = this.#finders.get(document)?.filter((other) => other !== tell) ?? []
                if (others.length > 0) this.#finders.set(document, others)
                else this.#finders.delete(document)
                this.letGoOf(document)
                reject(new CallError("failed", UNWANTED))
            }
            push(this.#finders, document, tell)
            signal.addEventListener("abort", abort)
            this.#engine.run(() => this.#engine.client.find(document))
        })
    }

    /** It is here, or cannot be. */
    found(document: string, failure: CallError | undefined): void {
        for (const tell of take(this.#finders, document)) tell(failure)
        this.letGoOf(document)
    }

    delete(document: string): Promise<void> {
        return new Promise((resolve, reject) => {
            push(this.#deleters, document, (failure) => (failure ? reject(failure) : resolve()))
            this.#engine.run(() => this.#engine.client.delete(document))
        })
    }

    deleted(document: string): void {
        for (const tell of take(this.#deleters, document)) tell()
        this.post(document, { type: "deleted", document })
        this.#shown.delete(document)
    }

    notDeleted(document: string, failure: CallError): void {
        for (const tell of take(this.#deleters, document)) tell(failure)
    }

    /** Whoever still waits is told why that is in vain. */
    giveUp(failure: CallError): void {
        for (const tells of [...this.#finders.values(), ...this.#deleters.values()])
            for (const tell of tells) tell(failure)
    }

    /** Lets a document leave memory if nobody uses it. */
    letGoOf(document: string): void {
        if (this.#shown.has(document) || this.#finders.has(document)) return
        const { client } = this.#engine
        client.observe(document, false)
        queueMicrotask(() => {
            if (!this.#shown.has(document)) this.#engine.heed(() => client.letGo(document))
        })
    }

    // Views.

    /** The view that a page must have. */
    view(page: Page, document: string): View {
        const view = this.viewOf(page, document)
        if (view === undefined) throw new CallError("deleted", DOCUMENT_GONE)
        return view
    }

    viewOf(page: Page, document: string): View | undefined {
        return this.#shown.get(document)?.views.get(page)
    }

    views(document: string): View[] {
        return [...(this.#shown.get(document)?.views.values() ?? [])]
    }

    /** All views of all documents. */
    get allViews(): View[] {
        return [...this.#shown.values()].flatMap(({ views }) => [...views.values()])
    }

    /** Those that a page has open. */
    of(page: Page): string[] {
        return [...this.#shown].filter(([, { views }]) => views.has(page)).map(([document]) => document)
    }

    /** Says something to all pages that have a document open, but one. */
    post(document: string, message: HostMessage, but?: Page): void {
        for (const page of this.#shown.get(document)?.views.keys() ?? []) if (page !== but) page.port.post(message)
    }

    open(page: Page, document: string): Opened {
        const { client } = this.#engine
        const heads = client.heads(document)
        const shown = this.#show(page, document, heads)
        const operations = client.state(document) as Operation[]
        return { document, heads, operations, status: this.#status(document, shown) }
    }

    /** A page has nothing open any more. */
    releaseAll(page: Page, takenUp?: ReadonlySet<string | undefined>): void {
        for (const document of [...this.#shown.keys()]) this.release(page, document, takenUp)
    }

    /**
     * A page has a document open no more. Of the authors whose edits were `takenUp` it may ask long
     * afterwards what is stored.
     */
    release(page: Page, document: string, takenUp?: ReadonlySet<string | undefined>): void {
        const shown = this.#shown.get(document)
        const view = shown?.views.get(page)
        if (!shown || !view || this.#engine.isStopped) return
        shown.views.delete(page)
        const { author } = view
        if (author !== undefined && !takenUp?.has(author)) this.#records.part(page.name, document, author)
        this.#records.forget()
        if (shown.views.size === 0) this.#shown.delete(document)
        this.letGoOf(document)
    }

    /** Goes on where an earlier host ended. */
    resume(page: Page, document: string, resume: Resume, stored?: StoredEdits): void {
        const { author, base, unstored, edits, renamed } = resume
        const { client } = this.#engine
        for (const names of renamed) client.rename(document, names)
        const last = stored && stored.seq > base.seq ? stored : base
        const known = last.heads.length > 0 && client.knowsHeads(document, [...last.heads])
        const [other, earlier] = this.earlier(page, document, author)
        const { views } = this.#show(page, document, client.heads(document))
        const view = views.get(page)!
        view.author = author
        if (other && earlier && earlier.processed > last.seq) {
            view.takeOver(earlier)
            views.delete(other)
        } else {
            if (stored) view.tell(stored, unstored !== undefined && stored.seq >= unstored)
            view.goOn(last, known)
            // What is not known was not stored, or wiped: all edits are tried on what there is.
            if (!known) view.processed = Math.max(stored?.seq ?? 0, (unstored ?? base.seq + 1) - 1)
        }
        for (const edit of edits) this.edit(page, { document, author, edit, seen: 0, named: 0 })
        this.update(document)
        this.tellStatus(document)
    }

    /** Of a page that was taken for gone: its view, in which edits may be made and not stored. */
    earlier(page: Page, document: string, author: string): [Page?, View?] {
        const views = [...(this.#shown.get(document)?.views ?? [])]
        return views.find(([other, view]) => other !== page && view.author === author) ?? []
    }

    /** Gives a page a view of a document that is ready. */
    #show(page: Page, document: string, heads: Heads): Shown {
        const { client } = this.#engine
        let shown = this.#shown.get(document)
        if (shown === undefined) {
            this.#engine.run(() => client.hold(document))
            client.observe(document, true)
            const now = client.status(document) as StatusOutput | undefined
            shown = { views: new Map(), status: now ? status(now) : { state: "offline" }, commits: 0 }
            this.#shown.set(document, shown)
        }
        shown.views.set(page, new View(client, document, (message) => this.#postTo(page, message), heads))
        return shown
    }

    /** What became of the edits of a page that is gone, its neighbours are told. */
    #postTo(page: Page, message: HostMessage): void {
        if (this.#pages.has(page)) return page.port.post(message)
        if (message.type !== "rejected" && message.type !== "leftOut") return
        const what = message.type === "rejected" ? `cannot be made: ${message.message}` : "was left out in part"
        this.#pages.tell({ type: "problem", message: `an edit of ${message.document} by a page that is gone ${what}` })
    }

    // Changes.

    edit(page: Page, { document, author, edit, seen, named }: EditMessage): void {
        const view = this.viewOf(page, document)
        if (view === undefined) return
        view.author = author
        // The last host may have stored it, and not come to tell.
        if (edit.seq <= view.processed) return
        this.#engine.about(document)
        this.#engine.run(() => {
            if (view.edit(edit, seen, named)) return this.changed(document, view)
            // It changed nothing, so nothing will be told of it.
            if (this.#engine.client.isStored(document)) view.stored()
            this.tellStatus(document)
        })
        this.update(document)
    }

    /** Changes a document for a page. Gives the result when the page shows what it did. */
    async act<T>(page: Page, signal: AbortSignal, document: string, action: () => T): Promise<T> {
        let result: T
        this.#acting = this.view(page, document)
        try {
            result = this.#engine.must(action)
        } finally {
            this.#acting = undefined
        }
        this.update(document)
        await this.whenShown(page, signal, document)
        return result
    }

    /** Resolves when a page shows what there is now. */
    whenShown(page: Page, signal: AbortSignal, document: string): Promise<void> {
        const view = this.view(page, document)
        const isShown = view.whenShown()
        return this.#engine.until(() => this.view(page, document) !== view || isShown(), signal)
    }

    /** Tells all views of a document but one what changed in it. */
    changed(document: string, but?: View): void {
        const [operations, whole] = this.#engine.client.takePatches(document) as [Operation[], boolean]
        for (const view of this.views(document)) {
            if (view !== but) view.changed(operations, whole, view === this.#acting)
        }
    }

    /** Sends what can be sent. Views show only what is stored, so that the next host knows it too. */
    update(document: string): void {
        const isStored = this.#engine.client.isStored(document)
        if (!isStored && this.#statuses.storageError(document) === undefined) return
        for (const view of this.views(document)) view.update()
    }

    /** How many commits of an open document were done. */
    commits(document: string): number {
        return this.#shown.get(document)?.commits ?? 0
    }

    committed(document: string): void {
        const shown = this.#shown.get(document)
        if (shown) shown.commits++
    }

    setStatus(output: StatusOutput): void {
        const shown = this.#shown.get(output.document)
        if (shown === undefined) return
        shown.status = status(output)
        this.tellStatus(output.document)
    }

    tellStatus(document: string): void {
        const shown = this.#shown.get(document)
        if (shown === undefined) return
        const status = this.#status(document, shown)
        for (const [page, { processed }] of shown.views) {
            page.port.post({ type: "status", document, status, processed })
        }
    }

    /** Whether some relay is about to have what it lacks of an open document. */
    get isSaving(): boolean {
        return [...this.#shown.values()].some(({ status }) => status.state === "saving")
    }

    #status(document: string, shown: Shown): DocumentStatus {
        const storageError = this.#statuses.storageError(document)
        return storageError === undefined ? shown.status : { ...shown.status, storageError }
    }
}
