// What local storage says of the edits of a handle, beside the document they are in: up to which
// they are stored, and what the page must be told of them. The next host may be asked to go on with
// them, and must neither make them twice nor forget what they are called.

import type { Storage, StorageWrite } from "../storage.js"
import type { StoredEdits } from "./protocol.js"
import { decode, encode } from "./utf8.js"
import type { View } from "./view.js"

/** A value under `["views", document, author]`. */
interface EditRecord {
    readonly stored: StoredEdits
    /** In milliseconds since 1970. */
    readonly at: number
}

/** One whose page has let go of the document. */
interface Parting {
    readonly author: string[]
    readonly key: string[]
    readonly at: number
}

/** What is said of a page's edits is kept so long after the page has let go of the document. */
const JOURNAL_MS = 60_000

/** A tab that was closed without a word leaves one behind; after so long nobody asks for it. */
export const UNTOLD_MS = 24 * 60 * 60 * 1000

export class EditRecords {
    #storage: Storage
    #journal: Storage | undefined
    /** Those that are stored with the commit of a document that is under way. */
    #due = new Map<string, StorageWrite[]>()
    /** Those that their pages need no more, and since when. */
    #partings: Parting[] = []

    constructor(storage: Storage, journal: Storage | undefined) {
        this.#storage = storage
        this.#journal = journal
    }

    /**
     * What is stored with a commit of who made the edits in it. The same when the commit is tried
     * again: it has no edits that were made meanwhile.
     */
    due(document: string, views: readonly View[]): StorageWrite[] {
        const due = this.#due.get(document) ?? views.flatMap(recordOf)
        this.#due.set(document, due)
        return due
    }

    /** These are stored. */
    committed(document: string): void {
        this.#due.delete(document)
    }

    /**
     * What the last host stored of a page's edits: those that it did not tell must not be made again,
     * and others may name what they made.
     */
    async of(document: string, author: string): Promise<StoredEdits | undefined> {
        const data = await this.#storage.load(["views", document, author])
        // Earlier versions kept no records.
        return data
            ? Object.assign({ records: [], taken: [] }, (JSON.parse(decode(data), untagged) as EditRecord).stored)
            : undefined
    }

    /** A page let go of a document, and of what it edited there as `author`. */
    part(page: string, document: string, author: string): void {
        this.#partings.push({ author: [page, author], key: ["views", document, author], at: Date.now() })
    }

    /** Removes those that nobody needs any more. */
    forget(): void {
        // What a page removed from its journal may be on its way there.
        const since = Date.now() - (this.#journal ? JOURNAL_MS : 0)
        while (this.#partings[0] && this.#partings[0].at <= since) {
            // If that fails, it is removed some day.
            this.#remove(this.#partings.shift()!).catch(() => {})
        }
    }

    async #remove({ author, key }: Parting): Promise<void> {
        // An entry that could not be removed is made if nobody knows that it was.
        const left = (await this.#journal?.keys(author)) ?? []
        if (left.length === 0) await this.#storage.remove(key)
    }

    /** Removes those of tabs that never came back. */
    async forgetOld(): Promise<void> {
        const left = this.#journal === undefined ? [] : await this.#journal.keys([]).catch(() => undefined)
        // What else would tell that these edits are stored?
        if (left === undefined) return
        const authors = new Set(left.map((key) => key[1]))
        const old = (await this.#storage.loadRange(["views"])).filter(({ key, data }) => {
            return (JSON.parse(decode(data)) as EditRecord).at < Date.now() - UNTOLD_MS && !authors.has(key[2])
        })
        // Else the next host does.
        if (old.length > 0) await this.#storage.commit(old.map(({ key }) => ({ remove: key }))).catch(() => {})
    }
}

function recordOf({ document, author, untold }: View): StorageWrite[] {
    if (author === undefined || untold === undefined) return []
    const value: EditRecord = { stored: untold, at: Date.now() }
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
