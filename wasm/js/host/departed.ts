// Pages that are gone, and what of their edits is only in the journal: it is made as if they had
// lived on, and then they are let go of.

import type { Entry } from "../journal.js"
import type { Chunk, Storage } from "../storage.js"
import { isDocumentIn } from "./database.js"
import type { Documents } from "./documents.js"
import type { Engine } from "./engine.js"
import { CallError, DOCUMENT_GONE } from "./errors.js"
import { push } from "./lists.js"
import { NOWHERE, Page, type Pages } from "./page.js"
import { ASIDE, type Resume } from "./protocol.js"
import { UNTOLD_MS, type EditRecords } from "./records.js"

/** Edits at which the engine traps are tried for so long. */
const TRIED_MS = 10 * 60_000

export type IsAlive = (page: string) => boolean

/** What these need of their host. */
export interface DepartedOptions {
    readonly engine: Engine
    readonly pages: Pages
    readonly storage: Storage
    readonly journal: Storage | undefined
    readonly documents: Documents
    readonly records: EditRecords
    /** Documents that are not opened. */
    readonly avoid: readonly string[]
    /** Names the last wipe. */
    readonly wiped: string | undefined
    /** Goes on with a document for a page. */
    resume(page: Page, document: string, resume: Resume): Promise<void>
}

export class Departed {
    #options: DepartedOptions
    /** It is known after that what is to be made of pages that are gone. */
    #known: Promise<unknown> = Promise.resolve()
    /** What is being made of them, by their names. One that comes back waits for it, */
    #making = new Map<string, Promise<unknown>>()
    /** and who opens a document waits for what is being made in it. */
    #makingIn = new Map<string, Promise<unknown>>()

    constructor(options: DepartedOptions) {
        this.#options = options
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

    /** Makes what is left of a page after `turn`, and lets go of it. */
    takeUpOf(page: Page, turn?: Promise<void>): void {
        const left = Promise.resolve(turn).then(() => this.#options.journal?.loadRange([page.name]))
        const begun = left.catch(() => undefined).then((left) => ({ made: this.#make(page, left) }))
        this.#openAfter(begun)
        whileDone(
            this.#making,
            page.name,
            begun.then(({ made }) => made),
        )
    }

    /** What was edited in a document by pages that are gone is there after that. */
    async takenUp(document = ""): Promise<void> {
        for (let known; known !== this.#known;) await (known = this.#known)
        await this.#makingIn.get(document)
    }

    /** All that was edited by pages that are gone is made after that. */
    async allTakenUp(): Promise<void> {
        await this.takenUp()
        await Promise.all(this.#making.values())
    }

    /** What a page edited before it came back is made after that. */
    async takenUpOf(page: Page): Promise<void> {
        await this.#making.get(page.name)
    }

    /** Documents with edits in the journal that are not made: their pages did not come to tell, or cannot. */
    async unheard(): Promise<string[]> {
        const { journal, documents, records } = this.#options
        const last = new Map<string, string[]>()
        for (const key of (await journal?.keys([]).catch(() => [])) ?? []) {
            const [author, seq] = key.slice(-2) as [string, string]
            const before = last.get(author)
            if (Number(before?.at(-1) ?? 0) < Number(seq)) last.set(author, key)
        }
        const views = documents.allViews
        const isHeard = ([name, key]: [string, string[]]): boolean =>
            views.some(({ author, processed }) => author === name && processed >= Number(key.at(-1)))
        const unheard = [...last].filter((entry) => !isHeard(entry))
        const found = unheard.map(async ([author, key]) => {
            const entry = (await journal?.load(key)) as unknown as Entry | undefined
            if (entry === undefined || this.#isWiped(entry)) return []
            const stored = await records.of(entry.document, author)
            return stored && stored.seq >= entry.edit.seq ? [] : [entry.document]
        })
        return (await Promise.all(found)).flat()
    }

    async #startTakingUp(living: IsAlive | Promise<IsAlive>): Promise<string[]> {
        const isAlive = await living
        const keys = (await this.#options.journal?.keys([]).catch(() => [])) ?? []
        const names = [...new Set(keys.map(([name = ""]) => name))].filter((name) => name !== ASIDE)
        for (const name of names) {
            if (isAlive(name)) continue
            this.takeUpOf(new Page(name, NOWHERE))
        }
        return names.filter(isAlive)
    }

    #openAfter(known: Promise<unknown>): void {
        this.#known = Promise.all([this.#known, known.catch(() => {})])
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
        const { engine, pages, storage, documents, avoid, resume } = this.#options
        entries.sort((a, b) => a.edit.seq - b.edit.seq)
        const { document, edit: first } = entries[0]!
        if (this.#isWiped(entries[0]!)) return true
        const view = documents.viewOf(page, document)
        if (view && (view.author ?? author) === author) {
            for (const entry of entries) {
                if (entry.edit.seq <= view.processed + 1) engine.heed(() => documents.edit(page, entry))
            }
            return true
        }
        // It is here again, and tells its edits itself.
        const [living] = documents.earlier(page, document, author)
        if (living && pages.has(living)) return false
        try {
            if (!(await isDocumentIn(storage, document))) throw new CallError("deleted", DOCUMENT_GONE)
            const edits = entries.map(({ edit }) => edit).filter(({ seq }, i) => seq === first.seq + i)
            const { base } = entries.at(-1)!
            await resume(page, document, { author, base, unstored: first.seq, edits, renamed: [] })
            return true
        } catch (error) {
            if (!(error instanceof CallError)) return false
            if (avoid.includes(document)) return this.#giveUp(page, entries)
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
            await this.#options.journal?.commit(writes)
        } catch {
            return false
        }
        const message = `the document engine failed on edits of ${document} again: they are set aside`
        if (isLast) this.#options.pages.tell({ type: "problem", message })
        return isLast
    }

    /** Lets go of a page that is gone, when all is stored that it edited. */
    async #partWith(page: Page, left: readonly Chunk[] | undefined): Promise<void> {
        const { engine, journal, documents } = this.#options
        const shown = documents.of(page)
        await engine.until(() => shown.every((document) => engine.client.isStored(document)))
        if (left && left.length > 0) await journal?.commit(left.map(({ key }) => ({ remove: key })))
        page.isLeaving = false
        // It may not be gone but kept by the browser, and when somebody comes back it tells its edits.
        // If its journal could not be read, the next host reads it.
        const views = documents.of(page).map((document) => documents.view(page, document))
        documents.releaseAll(page, new Set(left?.map(({ key }) => key[1]) ?? views.map(({ author }) => author)))
    }

    /** Whether a page that had heard of this wipe last was wiped since, with what it edited. */
    #isWiped({ wiped }: Entry): boolean {
        return this.#options.wiped !== undefined && this.#options.wiped !== wiped
    }
}

/** Keeps what is being done under its key, until that is done. */
function whileDone(doing: Map<string, Promise<unknown>>, key: string, done: Promise<unknown>): void {
    const all = Promise.all([doing.get(key), done.catch(() => {})])
    doing.set(key, all)
    void all.then(() => doing.get(key) === all && doing.delete(key))
}
