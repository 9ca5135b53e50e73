// What one page shows of one document, and how it is kept up to date.
//
// A page edits its view at once, and tells afterwards. So an edit may come that was made before
// the page saw what others changed. It is carried out where it was made, at the heads that the page
// showed, and merged, as if it came from another replica. To know these heads exactly, there is
// never more than one update on its way to a page, and a page takes it only if it has told of
// every edit that it made before.

import type { Client } from "../../dist/core/reconverge.js"
import type { Operation } from "../operations.js"
import type { Heads } from "../types.js"
import { words, type Edit, type HostMessage, type StoredEdits } from "./protocol.js"

let views = 0

/** The engine trapped, and with it ended the host: nothing can be gone on with. */
export class EngineError extends Error {}

export class View {
    /** Tells the engine whose edits to take back. */
    readonly number = ++views
    /** Whose edits they are, once there are some. */
    author: string | undefined
    #undoable = [0, 0]
    /** What the page shows: the changes up to these. */
    heads: Heads
    /** What others changed since, in order. */
    #unsent: Operation[] = []
    /** Not known step by step; the difference between the heads is. */
    #isStale = false
    /** The page must forget what it shows. */
    #isWhole = false
    /** It did; edits that it made before that do not count. */
    #isRejected = false
    #updates = 0
    #onItsWay: { update: number; heads: Heads; whole: boolean } | undefined
    #processed = 0
    #unstored: { seq: number; heads: Heads; names: [string, string][] }[] = []
    /** The real names of objects that the page named. */
    #names = new Map<string, string>()
    /** The edits that made them, with what they are called, until the page knows. */
    #named: { seq: number; names: [string, string][] }[] = []

    constructor(
        readonly client: Client,
        readonly document: string,
        readonly post: (message: HostMessage) => void,
        heads: Heads,
    ) {
        this.heads = heads
    }

    /** The last edit of the page that was carried out, or rejected. */
    get processed(): number {
        return this.#processed
    }

    /** Whether the page shows all that there is. */
    get isCurrent(): boolean {
        return this.#unsent.length === 0 && !this.#isStale && !this.#isWhole && !this.#onItsWay
    }

    /** The heads at which to read and edit what the page shows; none if that is all there is. */
    get at(): string[] | undefined {
        return this.isCurrent ? undefined : [...this.heads]
    }

    /** What the page shows once it took what is on its way. */
    get shown(): Heads {
        return this.#onItsWay?.heads ?? this.heads
    }

    /** What an earlier host gave the page, and what it shows, are different things. */
    lag(): void {
        this.#isStale = true
        this.#unsent = []
    }

    /** Has the page forget what it shows, because it cannot be continued. */
    replace(): void {
        this.#isWhole = true
        this.#unsent = []
        this.#isStale = false
    }

    /** Others changed something. */
    changed(operations: readonly Operation[], whole: boolean): void {
        if (whole) this.replace()
        else if (!this.#isWhole && !this.#isStale) this.#unsent.push(...operations)
    }

    /** The page took an update. */
    seen(update: number): void {
        const onItsWay = this.#onItsWay
        if (onItsWay === undefined || update < onItsWay.update) return
        this.heads = onItsWay.heads
        if (onItsWay.whole) this.#isRejected = false
        this.#onItsWay = undefined
    }

    /** The page edited. Gives whether anything changed; what changed is to be taken from the client. */
    edit({ seq, operations, time, message }: Edit, seen: number, named: number): boolean {
        this.seen(seen)
        this.#forgetNames(named)
        this.#processed = seq
        if (this.#onItsWay) {
            // The page had edited before it came.
            if (this.#onItsWay.whole) this.replace()
            else this.#isStale = true
            this.#unsent = []
            this.#onItsWay = undefined
        }
        if (this.#isRejected) return false
        const { at } = this
        const known = this.#names.size
        try {
            const hash = this.client.change(
                this.document,
                [...operations],
                this.#names,
                time,
                message,
                at,
                this.number,
                performance.now(),
            )
            const names = [...this.#names].slice(known)
            if (names.length > 0) this.#named.push({ seq, names })
            if (hash !== undefined) {
                this.heads = [hash]
                if (at) {
                    this.#unsent = []
                    this.#isStale = !this.#isWhole
                }
            }
            this.#unstored.push({ seq, heads: this.heads, names })
            this.tellUndoable()
            return hash !== undefined
        } catch (error) {
            if (error instanceof EngineError) throw error
            this.#isRejected = true
            this.replace()
            this.post({ type: "rejected", document: this.document, seq, message: words(error) })
            return false
        }
    }

    /** Tells the page whether there is something to take back, if that is news. */
    tellUndoable(): void {
        const [undo = 0, redo = 0] = this.client.undoable(this.number)
        if (undo === this.#undoable[0] && redo === this.#undoable[1]) return
        this.#undoable = [undo, redo]
        this.post({ type: "undoable", document: this.document, undo: undo === 1, redo: redo === 1 })
    }

    /** What the page is to be told once everything of the document is in local storage. */
    get untold(): StoredEdits | undefined {
        const last = this.#unstored.at(-1)
        return last && { seq: last.seq, heads: last.heads, names: this.#unstored.flatMap(({ names }) => names) }
    }

    /** Everything of the document is in local storage. */
    stored(): void {
        const { untold } = this
        if (untold === undefined) return
        this.#unstored = []
        this.post({ type: "stored", document: this.document, ...untold })
    }

    /** Goes on behind edits that an earlier host stored and did not come to tell of. */
    goOn(stored: StoredEdits): void {
        this.#processed = stored.seq
        const names = stored.names.map(([name, real]): [string, string] => [name, real])
        for (const [name, real] of names) this.#names.set(name, real)
        if (names.length > 0) this.#named.push({ seq: stored.seq, names })
        this.post({ type: "stored", document: this.document, ...stored })
    }

    /** Sends what others changed, unless something is on its way. */
    update(): void {
        if (this.#onItsWay || this.isCurrent) return
        const heads = this.client.heads(this.document)
        const whole = this.#isWhole
        const operations = whole
            ? this.client.state(this.document)
            : this.#isStale
              ? this.client.diff(this.document, [...this.heads], heads)
              : this.#unsent
        this.#unsent = []
        this.#isStale = false
        this.#isWhole = false
        this.#updates += 1
        this.#onItsWay = { update: this.#updates, heads, whole }
        this.post({
            type: "update",
            document: this.document,
            update: this.#updates,
            processed: this.#processed,
            heads,
            operations: operations as Operation[],
            whole,
        })
    }

    /** The real name of an object that the page may have named. */
    objectId(name: string): string {
        return this.#names.get(name) ?? name
    }

    #forgetNames(named: number): void {
        while (this.#named[0] !== undefined && this.#named[0].seq <= named) {
            for (const [name] of this.#named.shift()?.names ?? []) this.#names.delete(name)
        }
    }
}
