// What the engine reads from local storage and writes there.

import type { Storage, StorageWrite } from "../storage.js"
import { names, wipe } from "./database.js"
import type { Documents } from "./documents.js"
import { now, type Engine } from "./engine.js"
import { AVOIDED, CallError } from "./errors.js"
import type { Pages } from "./page.js"
import { words } from "./protocol.js"
import type { EditRecords } from "./records.js"
import type { Statuses } from "./statuses.js"

/** What a store needs of its host. */
export interface StoreOptions {
    readonly engine: Engine
    readonly storage: Storage
    readonly pages: Pages
    readonly documents: Documents
    readonly records: EditRecords
    readonly statuses: Statuses
    /** Documents that are not opened. */
    readonly avoid: readonly string[]
}

export class Store {
    #options: StoreOptions
    /** All that is kept is being removed: what is to be written waits, and is not if that succeeds. */
    #wiping: Promise<void> | undefined

    constructor(options: StoreOptions) {
        this.#options = options
    }

    async load(document: string): Promise<void> {
        const { engine, storage, avoid } = this.#options
        const entries: unknown[][] = []
        let failure = avoid.includes(document) ? AVOIDED : undefined
        try {
            const chunks = failure === undefined ? await storage.loadRange(["documents", document]) : []
            for (const { key, data } of chunks) entries.push([key.slice(2), data])
        } catch (error) {
            failure = words(error)
        }
        engine.heed(() => engine.client.loaded(now(), document, entries, failure))
    }

    async store(document: string, writes: StorageWrite[]): Promise<void> {
        const { engine, pages, documents, records } = this.#options
        // Also if it is removed: pages may tell their edits of it again, if it is found again.
        const due = records.due(document, documents.views(document))
        let failure: string | undefined
        try {
            await this.commit([...writes, ...due])
            records.committed(document)
            documents.committed(document)
        } catch (error) {
            failure = words(error)
            pages.tell({ type: "problem", message: `local storage: ${failure}` })
        }
        engine.heed(() => engine.client.stored(now(), document, failure))
    }

    /** The browser deleted what was kept. Of the documents that are open, all of it is here too. */
    async writeAgain(storageId: string, relays: readonly string[]): Promise<void> {
        const { engine, pages } = this.#options
        if (engine.isStopped) return
        const { client } = engine
        const kept = client.documents().flatMap((document) => client.kept(document) as StorageWrite[])
        const lost = "local storage was deleted, by the browser or its user"
        try {
            await this.commit([...names(storageId, relays), ...kept])
            pages.tell({ type: "problem", message: `${lost}; the documents that are open were written again` })
        } catch (error) {
            pages.tell({ type: "problem", message: `${lost}, and cannot be written again: ${words(error)}` })
        }
    }

    async commit(writes: StorageWrite[]): Promise<void> {
        if (this.#wiping) await this.unlessWiped()
        return this.#options.storage.commit(writes)
    }

    /** Resolves when all is written that is to be, and what relays acknowledged. */
    flush(): Promise<void> {
        const { engine, statuses } = this.#options
        const { client } = engine
        engine.run(() => client.flush())
        const documents = client.documents()
        return engine.until(() => {
            for (const document of documents) {
                const failure = statuses.storageError(document)
                if (failure !== undefined) throw new CallError("storage", failure)
            }
            return documents.every((document) => client.isFlushed(document))
        })
    }

    /** Removes all that is kept, in one commit that begins in this task. `ended` is called when it is done. */
    wipe(ended: () => Promise<void>): Promise<void> {
        const wiping = this.#options.storage.commit(wipe())
        this.#wiping = wiping.then(ended, () => (this.#wiping = undefined))
        return wiping
    }

    get isWiping(): boolean {
        return this.#wiping !== undefined
    }

    /** Resolves when no wipe is under way any more. */
    async wiped(): Promise<void> {
        await this.#wiping
    }

    /** During a wipe, waits; after it, for ever: what was begun before does not go on. */
    async unlessWiped(): Promise<void> {
        await this.#wiping
        if (this.#wiping) await new Promise(() => {})
    }
}
