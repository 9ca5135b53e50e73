// What a page edited, kept by the page itself until its host has stored it: a tab may go right after
// an edit, and then nobody hears what it posted. What is handed to IndexedDB before the task ends
// that made the edit is kept.
//
// A database of its own, since the host's commits would be waited for in theirs, and what waits when
// the page goes is lost. For the same reason pages have object stores of their own, as far as there are
// enough: a host that reads what another page left may be busy for a while.
//
// The key of an entry is the page, the author and the number of the edit. The page removes it when the
// edit is stored; of a page that is gone, the host makes the edits and removes the entries.

import { ASIDE, type Base, type PageMessage } from "./host/protocol.js"
import { IndexedDbStorage, type ObjectStores } from "./indexeddb.js"
import type { StorageWrite } from "./storage.js"

/** What the host was told, and what it must know if it is the next one that hears of it. */
export interface Entry extends Extract<PageMessage, { type: "edit" }> {
    readonly base: Base
    /** The last wipe that the page had heard of. */
    readonly wiped: string | undefined
    /** When the engine trapped at it for the first time, in milliseconds since 1970. */
    readonly triedAt?: number
}

/** So many edits of a handle are kept at most. Those after them are in memory, until some are stored. */
export const JOURNAL_EDITS_MAX = 10_000

/** A repo does not wait longer for it. */
const OPEN_MS_MAX = 2000

/** After the name of the repo, in the name of its database. */
export const JOURNAL = ":journal"

const PAGES = Array.from({ length: 32 }, (_, i) => `pages ${i}`)

const STORES: ObjectStores = {
    version: 2,
    names: [ASIDE, ...PAGES],
    // Names of pages are drawn, as hexadecimal digits.
    of: (page) => (page === ASIDE ? ASIDE : PAGES[Number.parseInt(page.slice(0, 4), 16) % PAGES.length]!),
}

export function journalStorage(name: string): IndexedDbStorage {
    return new IndexedDbStorage({ name: name + JOURNAL, openMsMax: OPEN_MS_MAX, durability: "relaxed" }, STORES)
}

export class Journal {
    #storage: IndexedDbStorage
    #page: string
    #writes: StorageWrite[] = []

    /** Of a page; undefined where nothing can be kept. */
    static open(name: string, page: string): Promise<Journal | undefined> {
        const journal = new Journal(name, page)
        return journal.#storage.keys([page]).then(
            () => journal,
            () => undefined,
        )
    }

    private constructor(name: string, page: string) {
        this.#storage = journalStorage(name)
        this.#page = page
    }

    /** Kept when the task ends that runs, together with the others of it. */
    put(entry: Entry): void {
        // IndexedDB takes it as it is.
        this.#writes.push({ put: this.#key(entry.author, entry.edit.seq), data: entry as never })
        queueMicrotask(() => this.flush())
    }

    /** With the next edit, or when the document is let go of. */
    remove(author: string, edits: readonly number[]): void {
        for (const seq of edits) this.#writes.push({ remove: this.#key(author, seq) })
    }

    flush(): void {
        if (this.#writes.length === 0) return
        const writes = this.#writes.splice(0)
        this.#storage.commit(writes).catch(() => {
            // The host has what it adds, too, unless this page goes. What stays is made when it does.
            this.#writes.unshift(...writes.filter((write) => "remove" in write))
        })
    }

    close(): void {
        this.flush()
        this.#storage.close()
    }

    #key(author: string, seq: number): string[] {
        return [this.#page, author, `${seq}`]
    }
}
