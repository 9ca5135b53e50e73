// What one page shows of one document, and how it is kept up to date.
//
// A page edits its view at once, and tells afterwards. So an edit may come that was made before
// the page saw what others changed. It is shifted by that, and made on top of all; what others
// changed is shifted by it before the page is told (`shift.ts`). Until then the page shows what no
// heads have: what is known is how it gets from there to what the document has. To know that
// exactly, there is never more than one update on its way to a page, and a page takes it only if it
// has told of every edit that it made before.

import type { Client } from "../../dist/core/reconverge.js"
import type { Operation } from "../operations.js"
import type { Heads } from "../types.js"
import { EngineError } from "./errors.js"
import {
    words,
    type Base,
    type Calls,
    type Edit,
    type HostMessage,
    type Recorded,
    type StoredEdits,
    type Taken,
} from "./protocol.js"
import { place, shift } from "./shift.js"

export class View {
    /** Whose edits they are, once there are some. */
    author: string | undefined
    /** The heads of what the page shows, if it has them. */
    shown: Heads | undefined
    /** What leads from there, once it took what is on its way, */
    #unsent: Operation[] = []
    /** to what there is at these. */
    #heads: Heads
    /** The page must forget what it shows. */
    #isWhole = false
    /** It did; edits that it made before that do not count. */
    #isRejected = false
    #updates = 0
    /** The last update that the page took. */
    #seen = 0
    /** All that is unsent is what the page asked for. */
    #isOwn = false
    /** Others changed what no page shows: of two who wrote at one place, the page shows the other's. */
    #isHidden = false
    #onItsWay: { update: number; heads: Heads; operations: readonly Operation[]; whole: boolean } | undefined
    /** The last edit of the page that was carried out, or rejected. */
    processed = 0
    /** The last edit, until the page knows that it is stored. */
    #unstored: number | undefined
    /** The real names of objects that the page named. */
    #names = new Map<string, string>()
    /** The edits that made them, with what they are called and what takes them back, until the page knows. */
    #named: { seq: number; names: [string, string][]; records: readonly Recorded[] }[] = []
    /** What was taken back, until the page knows. */
    #taken = new Map<number, Taken>()

    constructor(
        readonly client: Client,
        readonly document: string,
        readonly post: (message: HostMessage) => void,
        heads: Heads,
    ) {
        this.shown = heads
        this.#heads = heads
    }

    /** Whether the page shows all that there is. */
    get isCurrent(): boolean {
        return this.#unsent.length === 0 && !this.#isWhole && !this.#onItsWay
    }

    /** What there is, or what the page shows once it took what is on its way. */
    get heads(): Heads {
        return this.#onItsWay?.heads ?? this.shown ?? this.#heads
    }

    /** The heads at which to read what the page shows, if it has them; none if that is all there is. */
    get at(): string[] | undefined {
        return this.isCurrent ? undefined : this.shown && [...this.shown]
    }

    /** Where a place of what the page shows is in the document, or the other way round. */
    place(object: string, index: number, back?: boolean): number {
        return place(index, object, this.#between, back)
    }

    /** What leads from what the page shows to what there is, if it need not forget all that. */
    get #between(): Operation[] {
        const { operations = [], whole } = this.#onItsWay ?? {}
        return whole ? this.#unsent : [...operations, ...this.#unsent]
    }

    /** Tells later whether the page shows what there is now. */
    whenShown(): () => boolean {
        const isUnsent = this.#unsent.length > 0 || this.#isWhole
        const update = isUnsent ? this.#updates + 1 : this.#updates
        return () => this.isCurrent || this.#seen >= update
    }

    /** Has the page forget what it shows, because it cannot be continued. */
    replace(): void {
        this.#isWhole = true
    }

    /** Something changed, by others or because the page asked for it. */
    changed(operations: readonly Operation[], whole: boolean, isOwn = false): void {
        const heads = this.client.heads(this.document)
        this.#isHidden ||= !isOwn && operations.length === 0 && heads.join() !== this.#heads.join()
        this.#heads = heads
        this.#isOwn = isOwn && (this.#isOwn || this.#unsent.length === 0)
        if (whole) this.replace()
        else if (!this.#isWhole) for (const operation of operations) this.#unsent.push(operation)
        this.#settle()
    }

    /** If nothing that can be seen is missing, the page shows what there is, or will. */
    #settle(): void {
        if (this.#unsent.length > 0 || this.#isWhole) return
        if (this.#onItsWay) this.#onItsWay.heads = this.#heads
        else this.shown = this.#heads
    }

    /** The page took an update. */
    seen(update: number): void {
        const onItsWay = this.#onItsWay
        this.#seen = Math.max(this.#seen, update)
        if (onItsWay === undefined || update < onItsWay.update) return
        this.shown = onItsWay.heads
        if (onItsWay.whole) this.#isRejected = false
        this.#onItsWay = undefined
    }

    /** The page edited. Gives whether anything changed; what changed is to be taken from the client. */
    edit({ seq, operations, time, message, by, isFinal = false }: Edit, seen: number, named: number): boolean {
        this.seen(seen)
        this.#forgetNames(named)
        this.processed = seq
        if (this.#onItsWay) {
            // The page had edited before it came.
            this.#unsent = this.#between
            this.#isHidden ||= this.#unsent.length === 0
            if (this.#onItsWay.whole) this.replace()
            this.#onItsWay = undefined
        }
        if (this.#isRejected) return false
        // What a page shows that must forget it has nothing to do with what there is, or little.
        const at = this.#isWhole ? this.at : undefined
        const [shifted, left] = shift(operations, at ? [] : this.#unsent, (name) => this.objectId(name))
        const known = this.#names.size
        try {
            const hash = this.client.change(this.document, shifted, this.#names, time, message, at, !isFinal, by)
            if (this.client.leftOut > 0) this.post({ type: "leftOut", document: this.document, seq })
            const names = [...this.#names].slice(known)
            const { record } = this.client
            const records = record.length > 0 ? [[seq, record] as const] : []
            if (names.length > 0 || records.length > 0) this.#named.push({ seq, names, records })
            if (at) {
                this.#heads = this.client.heads(this.document)
                if (hash !== undefined) this.shown = [hash]
            } else {
                if (hash !== undefined) this.#heads = [hash]
                this.#unsent = left
                this.shown = left.length > 0 ? undefined : this.#heads
            }
            this.#unstored = seq
            return hash !== undefined
        } catch (error) {
            if (error instanceof EngineError) throw error
            this.#isRejected = true
            this.replace()
            this.post({ type: "rejected", document: this.document, seq, message: words(error) })
            return false
        }
    }

    /** What was recorded, in order, as the engine takes it back. What nobody has any more is left out. */
    recorded(records: Calls["take"][0][1], told: number): Uint8Array[] {
        for (const key of this.#taken.keys()) if (key >= told) this.#taken.delete(key)
        const taken = Array.from(this.#taken, ([key, { record }]) => [key, record] as const)
        const own = new Map([...this.#named.flatMap(({ records }) => records), ...taken])
        return records.flatMap(([key, record = own.get(key)]) => record ?? [])
    }

    /**
     * What came of taking back, or of restoring, which `act` does unless an earlier host did it and did not
     * come to tell. It is kept beside the edits that are stored until the page has it.
     */
    take(as: number, act: () => number): Taken {
        const before = this.#taken.get(as)
        if (before) return before
        const done = act()
        const { record, renamed, renamedObjects: objects } = this.client
        const taken = { done, record, renamed, objects }
        this.#taken.set(as, taken)
        this.#unstored ??= this.processed
        return taken
    }

    /** What the page is to be told once everything of the document is in local storage. */
    get untold(): StoredEdits | undefined {
        const seq = this.#unstored
        if (seq === undefined) return undefined
        const names = this.#named.flatMap(({ names }) => names)
        const records = this.#named.flatMap(({ records }) => records)
        const forgets = this.#isWhole || this.#onItsWay?.whole
        const heads = forgets ? [] : (this.shown ?? this.#heads)
        return {
            seq,
            names,
            records,
            taken: [...this.#taken],
            heads,
            behind: forgets || this.shown ? [] : this.#between,
        }
    }

    /** Everything of the document is in local storage. */
    stored(): void {
        const { untold } = this
        if (untold === undefined) return
        this.#unstored = undefined
        this.post({ type: "stored", document: this.document, ...untold })
    }

    /** Goes on where an earlier host ended; if that is not known, the page must forget what it shows. */
    goOn({ seq, heads, behind }: Base, known: boolean): void {
        this.processed = seq
        if (!known) return this.replace()
        this.shown = behind.length > 0 ? undefined : heads
        const since = this.client.since(this.document, [...heads], [...this.#heads]) as Operation[]
        this.#unsent = [...behind, ...since]
        this.#settle()
    }

    /** An earlier host stored these edits, and maybe did not come to tell of them. */
    tell(stored: StoredEdits, isNews: boolean): void {
        const names = stored.names.map(([name, real]): [string, string] => [name, real])
        for (const [name, real] of names) this.#names.set(name, real)
        for (const [as, taken] of stored.taken) {
            this.#taken.set(as, taken)
            this.client.rename(this.document, taken.renamed)
        }
        const { seq, records } = stored
        this.#named.push({ seq, names, records })
        if (isNews) this.post({ type: "stored", document: this.document, ...stored })
    }

    /** Goes on where another view of the same handle is, of which not everything may be stored. */
    takeOver(earlier: View): void {
        this.#names = earlier.#names
        this.#named = earlier.#named
        this.#taken = earlier.#taken
        this.#unstored = earlier.processed
        const forgets = earlier.#isWhole || earlier.#onItsWay?.whole === true
        const heads = forgets ? [] : (earlier.shown ?? earlier.#heads)
        const behind = forgets || earlier.shown ? [] : earlier.#between
        this.goOn({ seq: earlier.processed, heads, behind }, !forgets)
    }

    /** Sends what others changed, unless something is on its way. */
    update(): void {
        if (this.#onItsWay || (this.isCurrent && !this.#isHidden)) return
        const whole = this.#isWhole
        const heads = this.#heads
        const operations = whole ? (this.client.state(this.document) as Operation[]) : this.#unsent
        this.#unsent = []
        this.#isWhole = this.#isHidden = false
        this.#onItsWay = { update: ++this.#updates, heads, operations, whole }
        const own = this.#isOwn
        this.#isOwn = false
        this.post({ type: "update", document: this.document, processed: this.processed, own, ...this.#onItsWay })
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
