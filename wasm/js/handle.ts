/// <reference lib="esnext.disposable" preserve="true" />

import { change, type Draft } from "./draft.js"
import { Emitter } from "./emitter.js"
import type { Base, Edit, HostMessage, Opened, Taken } from "./host/protocol.js"
import { JOURNAL_EDITS_MAX, type Entry, type Journal } from "./journal.js"
import { type Link, RepoError, type Said } from "./link.js"
import { hex, uuid } from "./names.js"
import type { Operation } from "./operations.js"
import { Place } from "./place.js"
import { plain } from "./plain.js"
import { isSame } from "./tally.js"
import { Tree, depth, describe, isNode, type Node } from "./tree.js"
import type {
    AutomergeUrl,
    ChangeEvent,
    ChangeGroup,
    ChangeInfo,
    Cursor,
    EphemeralMessage,
    FailureCode,
    Heads,
    Level,
    Mark,
    Patch,
    Path,
    PathIn,
    QuarantinedChange,
    Span,
    SyncStatus,
    Synchronous,
    Undoable,
    View,
} from "./types.js"
import { type Direction, Undos } from "./undo.js"

/** With the text itself. Automerge's stack ends somewhere between 400 and 500. */
const SPANS_DEPTH_MAX = 101

/** What a handle tells. */
export interface HandleEvents<T> {
    /**
     * The document changed: by this page, which hears of it within `change()`, or by others. Without
     * patches, others changed what is not shown: of two values at one place, the other one is.
     */
    change: ChangeEvent<T>
    /** It is another status than before. */
    status: SyncStatus
    /** Whether any relay is connected changed. */
    connection: boolean
    /** Another tab has come to run the engine: what was broadcast meanwhile is lost. */
    moved: undefined
    /**
     * The browser keeps this page for going back to it, and cuts it off from its documents until then.
     * What is broadcast now may still be heard.
     */
    suspend: undefined
    /** Somebody broadcast something. */
    "ephemeral-message": EphemeralMessage
    /** Whether there is something to take back, or to do again, changed. */
    undoable: Undoable
    /** The document was removed from this browser; `close` follows. */
    delete: undefined
    /** The handle is of no further use: it was released, its document deleted or the repo shut down. */
    close: undefined
    /** An edit was lost, or a part of it: what is shown is without it. */
    error: Error
}

const EVENTS = "change status connection moved suspend ephemeral-message undoable delete close error".split(
    " ",
) as never[]

/** What could not be read is tried again so much later. */
const RESUME_MS = 10_000

/** The same objects each time, as what React renders of them is compared. */
const UNDOABLE = [0, 1, 2, 3].map((bits): Undoable => Object.freeze({ canUndo: bits % 2 > 0, canRedo: bits > 1 }))

const LEVELS: readonly unknown[] = ["local", "durable", "replicated"] satisfies Level[]

const LEFT_OUT = "a part of an edit was left out: somebody had removed what it was in, and emptied it"

const WIPED = "the last edits were made while all was wiped, and may be lost"

/** What goes with a change. */
export interface ChangeOptions {
    /** A note for the history, for good. */
    message?: string
    /**
     * `false` for what {@link DocHandle.undo} is not to take back, as what a program does by itself.
     * Or a name, the same for all that is to be taken back at once, as the moves of one drag: changes
     * with one name that follow each other are one step.
     */
    undo?: string | false
}

/** Which changes the history lists. */
export interface HistoryOptions {
    /** Those that made, edited or deleted what is there now, or what is in it: a map, a list or a text. */
    path?: Path | Place
    /** Ends it: what is asked for is not needed any more. */
    signal?: AbortSignal
}

/** Of what is taken back, and done again. */
export interface UndoOptions<In extends Path | Place = Path | Place> {
    /** Only what happened in the map, list or text there, and in what is in it: in what an editor shows, or a card. */
    in?: In
}

/** @internal What a handle needs of its repo. */
export interface HandleOwner {
    readonly link: Link
    /** In whose name it edits. */
    readonly author: string | undefined
    readonly isConnected: boolean
    opened<T>(opened: Opened): DocHandle<T>
    release(handle: DocHandle<unknown>): void
    statusChanged(document: string, status: SyncStatus): void
    /** Where edits are kept until the host has stored them, if they can be. */
    readonly journal: Journal | undefined
}

/** An edit, and its place among all that the page said. */
interface Own {
    readonly word: number
    readonly edit: Edit
}

/**
 * A document. `doc()` and `change()` answer at once: the page has a view of its own, and what
 * follows from an edit happens elsewhere. Everything else takes a moment.
 */
export class DocHandle<T> {
    /** Names the document: the part of its url after `automerge:`. */
    readonly documentId: string
    /** Names the document, for {@link Repo.find} here and elsewhere. */
    readonly url: AutomergeUrl
    #owner: HandleOwner
    #events = new Emitter<HandleEvents<T>>(EVENTS)
    #tree = new Tree()
    /** The one before, while names of its objects may still become real ones: places hold on to those. */
    #former: Tree | undefined
    #status: SyncStatus
    /** What was shown when this was told last; edits since may not be stored. */
    #base: Base
    #seq = 0
    /** Hosts tell by it which edits of this handle they have. */
    #author = hex()
    #unstored: Own[] = []
    /** The last update that was taken. */
    #seen = 0
    /** Names of objects up to this edit are real ones. */
    #named = 0
    #objects = 0
    #failure: RepoError | undefined
    #isLost = false
    #undos = new Undos()

    /** @internal */
    static opened<T>(owner: HandleOwner, opened: Opened): DocHandle<T> {
        return new DocHandle<T>(owner, opened)
    }

    /** @internal In the place of one that was let go of before all that it edited was stored. */
    static again<T>(old: DocHandle<unknown>): DocHandle<T> {
        const { documentId: document, status } = old
        const handle = new DocHandle<T>(old.#owner, { document, heads: [], operations: [], status })
        handle.#tree = old.#tree
        handle.#base = old.#base
        handle.#seq = old.#seq
        handle.#author = old.#author
        handle.#unstored = old.#unstored
        handle.#seen = old.#seen
        handle.#named = old.#named
        handle.#objects = old.#objects
        handle.#undos = old.#undos
        return handle
    }

    private constructor(owner: HandleOwner, { document, heads, operations, status }: Opened) {
        this.#owner = owner
        this.documentId = document
        this.url = `automerge:${document}`
        this.#base = { seq: 0, heads, behind: [] }
        this.#status = status
        for (const operation of operations) this.#tree.apply(operation)
    }

    /**
     * The document, as plain data that is frozen. It is the same object until something changes, and
     * so is every part of it in which nothing changed. Dates and bytes cannot be frozen: do not
     * change them.
     */
    doc(): View<T> {
        return this.#tree.view() as View<T>
    }

    /**
     * Edits the document, at once: `doc()` shows it when this returns. All that `fn` does is one
     * change; if it throws, nothing happened. An `fn` that changes nothing makes no change. It must
     * not be asynchronous, and its draft is of no use afterwards.
     *
     * The change is in memory then. It is in local storage moments later, and on its way to relays;
     * {@link whenSynced} and {@link status} tell how far it is.
     *
     * @throws what `fn` throws; TypeError or RangeError for what a document cannot hold, with its
     * path; RepoError if the document was deleted or let go of.
     */
    change<R>(fn: (draft: Draft<T>) => Synchronous<R>, options: ChangeOptions = {}): void {
        this.#checkOpen()
        const { undo, ...note } = noteOf(options)
        const before = this.#events.has("change") ? this.doc() : undefined
        const patches: Patch[] | undefined = before === undefined ? undefined : []
        const operations = change(this.#tree, fn, () => `~${++this.#objects}`, patches)
        if (operations.length === 0) return
        this.#seq += 1
        const edit: Edit = { ...this.#note(note, undo), operations, seq: this.#seq }
        const isNews = undo !== false && this.#undos.made(this.#seq, operations, this.#tree, edit.time, undo)
        this.#unstored.push({ word: this.#owner.link.nextWord(), edit })
        this.#post(edit)
        if (this.#unstored.length <= JOURNAL_EDITS_MAX) {
            const { seq, heads, behind } = this.#base
            const { wiped } = this.#owner.link
            this.#owner.journal?.put({ ...this.#told(edit), base: { seq, heads, behind }, wiped })
        }
        if (this.#status.state === "saved") {
            this.#setStatus({ state: this.#owner.isConnected ? "saving" : "offline" })
        }
        if (patches) {
            this.#events.emit("change", { doc: this.doc(), before: before as View<T>, patches, source: "local" })
        }
        if (isNews) this.#tellUndoable()
    }

    /** Whether any relay is connected. The event `connection` tells of changes. */
    get isConnected(): boolean {
        return this.#owner.isConnected
    }

    /** How safe the document's changes are. */
    get status(): SyncStatus {
        return this.#status
    }

    /** Calls `listener` from now on, after the event. Gives what ends that. */
    on<K extends keyof HandleEvents<T>>(event: K, listener: (value: HandleEvents<T>[K]) => void): () => void {
        return this.#events.on(event, listener)
    }

    /** Ends what {@link on} began. */
    off<K extends keyof HandleEvents<T>>(event: K, listener: (value: HandleEvents<T>[K]) => void): void {
        this.#events.off(event, listener)
    }

    /** The changes from now on. Who falls behind by more than 1,000 misses the oldest. */
    changes(signal?: AbortSignal): AsyncIterableIterator<ChangeEvent<T>> {
        return this.#events.iterate("change", signal)
    }

    /** The status, whenever it changes. */
    statuses(signal?: AbortSignal): AsyncIterableIterator<SyncStatus> {
        return this.#events.iterate("status", signal)
    }

    /** What others broadcast from now on. */
    messages(signal?: AbortSignal): AsyncIterableIterator<EphemeralMessage> {
        return this.#events.iterate("ephemeral-message", signal)
    }

    /**
     * Waits until everything that this page has changed so far is in local storage (`local`), on
     * the disk of a relay (`durable`, the default) or of all relays (`replicated`). A relay that
     * refuses changes is waited for in vain: give a `signal`.
     *
     * @throws RepoError if the document or the repo is closed first; the signal's reason.
     */
    async whenSynced(options: { level?: Level; signal?: AbortSignal } = {}): Promise<void> {
        const { level = "durable", signal } = options ?? {}
        if (!LEVELS.includes(level)) throw new RepoError("failed", `there is no level ${String(level)}`)
        return this.#owner.link.call("synced", [this.documentId, level], { signal })
    }

    /**
     * Waits until the page shows the document as a relay has it: until one that is connected has said,
     * after this call, which version it has, or that it has nothing new. `find` gives what is kept here at
     * once, however old that is. Of several relays, one is enough; of what the relay does not have, all is
     * here. What it stores in the very moment of the call may come right after.
     *
     * Relays other than Reconverge's do not answer the message that asks for this: on a connection that is
     * open, their word is what they sent last.
     *
     * @throws RepoError with code `unavailable` when no relay has answered for `timeout` milliseconds,
     * 10,000 by default, or none will, as it refuses or the repo is offline; the signal's reason.
     */
    async whenCurrent({ signal, timeout = 10_000 }: { signal?: AbortSignal; timeout?: number } = {}): Promise<void> {
        if (!(timeout >= 0)) throw new RangeError("a timeout is a number of milliseconds")
        return this.#owner.link.call("current", [this.documentId, timeout], { signal })
    }

    /** The heads of the document, with all that this page has changed so far. */
    heads(): Promise<Heads> {
        return this.#owner.link.call("heads", [this.documentId])
    }

    /** The document as it was at these heads, as plain data that is frozen. */
    async view(heads: Heads, { signal }: { signal?: AbortSignal } = {}): Promise<View<T>> {
        const state = await this.#owner.link.call("state", [this.documentId, checked(heads)], { signal })
        return treeOf(state).view() as View<T>
    }

    /**
     * What {@link history} lists otherwise, in groups: changes of one author that follow each other within
     * so many seconds, whatever others do meanwhile; in the order in which they begin. Where no author is
     * named, the actor is taken for one. To put a part back to what it was after a group, `restore` it at
     * the hash of the last of its `changes`; what others did meanwhile is in that only as far as the one who
     * made it had it.
     *
     * @throws RangeError if `group` is no number from 0 on.
     */
    async history(options: HistoryOptions & { group: number }): Promise<ChangeGroup[]>
    /**
     * All changes, each after those it depends on; or those of what is at a path. A long history is told
     * in parts, between which edits are made as ever. To look for the changes of a path takes about
     * ten times as long as to list as many. Of what was deleted there is none: look at the history of the
     * map or list that it was in, and bring it back by `restore`.
     *
     * @throws RangeError if there is no map, list or text at the path; the signal's reason.
     */
    async history(options?: HistoryOptions): Promise<ChangeInfo[]>
    async history(options: HistoryOptions & { group?: number } = {}): Promise<ChangeInfo[] | ChangeGroup[]> {
        const { path = [], signal, group } = options
        if (group !== undefined && !(typeof group === "number" && group >= 0))
            throw new RangeError("a group is a number of seconds")
        const changes = await this.#owner.link.call("history", [this.documentId, this.#object(path)], { signal })
        return group === undefined ? changes : grouped(changes, group)
    }

    /**
     * Who edits this document here, in hexadecimal, as `history` names it. All tabs of a browser edit as
     * one as long as one of them has the document open, unless they have different authors; later, and
     * in changes to the past, it is another one.
     */
    actor(): Promise<string> {
        return this.#owner.link.call("actor", [this.documentId, this.#owner.author])
    }

    /**
     * All values at a key of a map or an index of a list, if several people put something there at
     * once: one is shown, the others are here too. Plain data by the names of the operations that put
     * it there, as Automerge's `getConflicts` names them; a counter is its sum. Undefined if there is one
     * value, or none.
     *
     * @throws RangeError if there is no map or list that the last part of the path could be in.
     */
    async conflicts<const P extends Path>(path: P & PathIn<T, P>): Promise<Record<string, unknown> | undefined> {
        const prop = listed(path).at(-1)
        const parent = this.#tree.at(path.slice(0, -1))
        const kind = isNode(parent) && parent.kind
        const fits = typeof prop === "string" ? kind === "map" : kind === "list" && (prop ?? -1) >= 0
        if (!isNode(parent) || prop === undefined || !fits) {
            throw new RangeError(`there is nothing ${where(path)}`)
        }
        return this.#owner.link.call("conflicts", [this.documentId, parent.id, prop])
    }

    /**
     * Makes what is at a path what it was at these heads, as one change, which can be taken back. What
     * is still there is edited, so what others do to it at the same time stays; what was deleted since
     * is made again. An index leads to the element that is there now, wherever it was then. If there is
     * something else at a key of a map than there was, or nothing, the key gets what it had.
     *
     * @throws RangeError if there is nothing at the path that could be restored, nor was at the key of a
     * map; RepoError if it was not there.
     */
    async restore<const P extends Path>(
        path: (P & PathIn<T, P>) | Place,
        heads: Heads,
        options: ChangeOptions = {},
    ): Promise<void> {
        const { undo, ...rest } = noteOf(options)
        const [note, past] = [this.#note(rest, undo), checked(heads)]
        const node = path instanceof Place ? path.node() : this.#tree.at(listed(path))
        const key = path instanceof Place ? undefined : path.at(-1)
        const around = isNode(node) ? node.parent : this.#tree.at((path as Path).slice(0, -1))
        const map = isNode(around) && around.kind === "map" ? around.id : undefined
        const object = isNode(node) ? node.id : undefined
        if (!object && (!map || typeof key !== "string")) throw new RangeError(`there is nothing ${where(path)}`)
        const name = isNode(node) ? node.key : (key as string)
        const as =
            undo === false ? undefined : this.#undos.makes(isNode(node) ? node : (around as Node), note.time, undo)
        const then = (record?: Uint8Array): boolean => {
            if (as !== undefined) {
                this.#undos.hasMade(as, record)
                this.#tellUndoable()
            }
            return record !== undefined
        }
        const args = [this.documentId, past, note, as, object, map, name] as const
        const called = this.#owner.link.call("restore", [...args], { then })
        if (as !== undefined) this.#tellUndoable()
        const isDone = await called.catch((error: unknown) => {
            then()
            throw error
        })
        if (isDone || object || this.#tree.at(path as Path) !== undefined) return
        throw new RangeError(`there is nothing ${where(path)}, and there was nothing`)
    }

    /** What is different at the heads `after` from the heads `before`, as patches to the document at `before`. */
    async diff(before: Heads, after: Heads, { signal }: { signal?: AbortSignal } = {}): Promise<Patch[]> {
        const heads = [checked(before), checked(after)] as const
        const steps = await this.#owner.link.call("diff", [this.documentId, ...heads], { signal })
        const patches: Patch[] = []
        for (const [path, operations] of steps)
            for (const operation of operations) describe(operation, path, (patch) => patches.push(patch))
        return patches
    }

    /**
     * Edits the document as it was at these heads; what came of it is merged with what there is.
     * Gives the heads after the change. If the tab in which the engine runs ends in this moment, the
     * change may be made twice.
     */
    async changeAt<R>(
        heads: Heads,
        fn: (draft: Draft<T>) => Synchronous<R>,
        options: ChangeOptions = {},
    ): Promise<Heads> {
        const { link } = this.#owner
        const { undo, ...note } = noteOf(options)
        const tree = treeOf(await link.call("state", [this.documentId, checked(heads)]))
        let objects = 0
        const operations = change(tree, fn, () => `~${++objects}`)
        if (operations.length === 0) return heads
        return link.call("changeAt", [this.documentId, heads, { ...this.#note(note), operations }])
    }

    /** Takes all changes of another document into this one. They should share their beginning. */
    async merge(other: DocHandle<T>): Promise<void> {
        if (!(other instanceof DocHandle)) throw new RepoError("failed", "merge takes a handle, as find() gives it")
        return this.#owner.link.call("merge", [this.documentId, other.documentId])
    }

    /** A new document with the same content and history. */
    async clone(): Promise<DocHandle<T>> {
        this.#checkOpen()
        const then = (opened: Opened): DocHandle<T> => this.#owner.opened<T>(opened)
        return this.#owner.link.call("clone", [uuid(), this.documentId, seconds()], { then })
    }

    /**
     * Takes back the last step of this handle that was not taken back: what others did stays, and so
     * does what they overwrote. A step is a change, edits of one text within half a second of each other,
     * or changes to which {@link ChangeOptions} give one name. Resolves to "all"; to "part" if a
     * part of it is gone, as others deleted or replaced that; to false if there is nothing to take back.
     * A step of which nothing is left is passed over.
     *
     * The last 1,000 steps are kept in this page's memory, with up to 64 MiB of what they deleted, until
     * it is closed or lets go of the document.
     */
    undo<const P extends Path>(options?: UndoOptions<(P & PathIn<T, P>) | Place>): Promise<"all" | "part" | false> {
        return this.#take("back", options)
    }

    /** Does again what `undo` took back last, unless this handle has changed something since. */
    redo<const P extends Path>(options?: UndoOptions<(P & PathIn<T, P>) | Place>): Promise<"all" | "part" | false> {
        return this.#take("again", options)
    }

    /**
     * Whether there is something to take back, and to do again. The event `undoable` tells of changes. It
     * is the same object as before while it says the same.
     */
    undoable<const P extends Path>(options: UndoOptions<(P & PathIn<T, P>) | Place> = {}): Undoable {
        const within = this.#within(options.in)
        const can = (direction: Direction): boolean => within !== null && this.#undos.can(direction, within)
        return UNDOABLE[Number(can("back")) + 2 * Number(can("again"))]!
    }

    /** Whether there is something to take back. The event `undoable` tells of changes. */
    get canUndo(): boolean {
        return this.#undos.can("back")
    }

    /** Whether there is something to do again. */
    get canRedo(): boolean {
        return this.#undos.can("again")
    }

    async #take(direction: Direction, { in: place }: UndoOptions = {}): Promise<"all" | "part" | false> {
        this.#checkOpen()
        for (;;) {
            const within = this.#within(place)
            const taking = within === null ? undefined : this.#undos.take(direction, within)
            if (!taking) return false
            const { step, as } = taking
            const records = step.parts.map(({ key, record }) => [key, record] as const)
            const { link, author } = this.#owner
            const then = (taken: Taken): number => {
                this.#undos.taken(step, as, taken)
                if (taken.done === 0) this.#tellUndoable()
                return taken.done
            }
            const call = link.call("take", [this.documentId, records, as, this.#undos.told, seconds(), author], {
                then,
            })
            this.#tellUndoable()
            const done = await call.catch((error: unknown) => {
                this.#undos.failed(step, as)
                this.#tellUndoable()
                throw error
            })
            if (done > 0) return done > 1 ? "all" : "part"
        }
    }

    /** The name of an object; null if it is gone. */
    #within(place?: Path | Place): string | null | undefined {
        if (place === undefined) return undefined
        return (place instanceof Place ? place : this.place(place)).node()?.id ?? null
    }

    #tellUndoable(): void {
        this.#events.emit("undoable", this.undoable())
    }

    /**
     * A place that stays with what is at `path` now: an element of a list is the same one then,
     * whatever others insert before it. Give it instead of a path to what shows that for a while:
     * editors and inputs take one, and so do the methods below.
     */
    place(path: Path): Place {
        return new Place(() => this.#tree, listed(path))
    }

    /**
     * A place in a text or list that stays with the element at `index`, whatever others edit. It is a
     * string that can be sent to others, and stored.
     *
     * @param index in UTF-16 code units of a text; its length is the place at the end, which stays
     * at the end.
     * @throws RangeError if there is no text or list at `path`, or no such index in it.
     */
    async cursor(path: Path | Place, index: number): Promise<Cursor> {
        if (!Number.isSafeInteger(index)) throw new RepoError("failed", "an index is a whole number")
        const object = this.#object(path)
        const node = this.#tree.node(object)
        const { length } = node?.kind === "text" ? node.text : node?.kind === "list" ? node.items : { length: -1 }
        if (index < 0 || index > length)
            throw new RangeError(`there is no index ${index} of a text or list ${where(path)}`)
        return this.#owner.link.call("cursor", [this.documentId, object, index])
    }

    /**
     * The index at which a cursor is now. If its element is gone, where that was.
     *
     * @throws RangeError if there is no text or list at `path`; RepoError if the cursor is none of it, as
     * when another text was put there since.
     */
    async position(path: Path | Place, cursor: Cursor): Promise<number> {
        if (typeof cursor !== "string") throw new RepoError("failed", "a cursor is a string, as cursor() gives it")
        return this.#owner.link.call("position", [this.documentId, this.#sequence(path), cursor])
    }

    /**
     * The changes that were taken out of this document, because together with their past they make
     * none, and those that were made on top of one: own ones may be among them. An `error` with the
     * code `quarantined` tells when there are more. They are in local storage as long as the document.
     */
    quarantined(): Promise<QuarantinedChange[]> {
        return this.#owner.link.call("quarantined", [this.documentId])
    }

    /** The marks of a text, as ranges that do not overlap for one name. */
    async marks(path: Path | Place): Promise<Mark[]> {
        return this.#owner.link.call("marks", [this.documentId, this.#object(path)])
    }

    /**
     * A text as its parts, in order: runs of characters that have the same marks, and the blocks
     * between them, each with what it holds as plain data. All of them together are the text.
     *
     * @throws RangeError if there is no text at `path`, or one with a block of more than 100 levels.
     */
    async spans(path: Path | Place): Promise<Span[]> {
        const object = this.#object(path)
        const node = this.#tree.node(object)
        if (node?.kind !== "text" || depth(node) > SPANS_DEPTH_MAX) {
            throw new RangeError(`there is no text, or one with too deep a block, ${where(path)}`)
        }
        return this.#owner.link.call("spans", [this.documentId, object])
    }

    /**
     * Sends plain data to all who have the document open, now or never: to the other tabs, and by
     * the relays to everyone else. At most 1 MiB. In order, unless something is lost: nothing is
     * stored, and nothing sent again. Reactive objects, as frameworks make them, are sent as what they
     * hold.
     *
     * @throws TypeError for a function, symbol, bigint, `Map` or `Set`, with its path; RangeError for
     * what is too large or nested too deep.
     */
    broadcast(message: unknown): void {
        this.#owner.link.post({ type: "broadcast", document: this.documentId, message: plain(message) })
    }

    /** Lets go of the document: the handle is of no further use, unless it was found several times. */
    release(): void {
        this.#owner.release(this as DocHandle<unknown>)
    }

    /** {@link release}, for `using`. */
    [Symbol.dispose](): void {
        this.release()
    }

    /** @internal A message of the host about this document. */
    handle(message: HostMessage): void {
        switch (message.type) {
            case "update":
                return this.#update(message)
            case "stored":
                this.#forget(message.seq)
                // An update that was taken may have told more.
                if (message.seq > this.#base.seq) this.#base = message
                if (this.#undos.recorded(message.records, message.seq)) this.#tellUndoable()
                this.#rename(new Map(message.names))
                this.#named = message.seq
                this.#former = undefined
                return
            case "takenOut":
                return this.#events.emit(
                    "error",
                    new RepoError(
                        "quarantined",
                        "changes that make no document were taken out, with what was made on top of them: see quarantined()",
                    ),
                )
            case "leftOut":
                return this.#events.emit("error", new RepoError("removed", LEFT_OUT))
            case "rejected":
                return this.#events.emit("error", new RepoError("failed", message.message))
            case "status":
                // Of before the last edit, it is no word that this one is saved; what else it says holds.
                if (message.processed === this.#seq || message.status.state !== "saved") {
                    this.#setStatus(message.status)
                }
                return
            case "ephemeral":
                return this.#events.emit("ephemeral-message", { senderId: message.sender, message: message.message })
            case "deleted":
                this.#forget(Infinity)
                this.#failure ??= new RepoError("deleted", `the document ${this.url} was deleted`)
                this.#undos = new Undos()
                // Nobody will say more.
                if (this.#status.state === "saving") this.#setStatus({ state: "offline" })
                this.#events.emit("delete", undefined)
                this.close()
        }
    }

    /**
     * @internal Tells a new host what it must know, with the edits of before this word. Gives those
     * after it, which the host must hear in their order.
     */
    resume(before = Infinity): Said[] {
        this.#seen = 0
        this.#isLost = false
        const edits = this.#unstored.filter(({ word }) => word < before).map(({ edit }) => edit)
        const unstored = this.#unstored[0]?.edit.seq
        const { renamed } = this.#undos
        const resume = { author: this.#author, base: this.#base, unstored, edits, renamed }
        this.#owner.link.call("resume", [this.documentId, resume]).catch((error: RepoError) => {
            this.#isLost = true
            this.unserved(error)
            this.#events.emit("error", error)
            // It may be so for a moment only.
            if (error.code === "storage") setTimeout(() => this.#isLost && this.resume(), RESUME_MS)
        })
        // Whoever broadcasts now is heard after that.
        queueMicrotask(() => this.#events.emit("moved", undefined))
        return this.#unstored.slice(edits.length).map(({ word, edit }) => ({ word, say: () => this.#post(edit) }))
    }

    /** @internal All was wiped, and what no host had stored with it. */
    wiped(): void {
        if (this.isNeeded) this.#events.emit("error", new RepoError("deleted", WIPED))
        this.handle({ type: "deleted", document: this.documentId })
    }

    /** @internal */
    connected(isConnected: boolean): void {
        this.#events.emit("connection", isConnected)
    }

    /** @internal */
    suspended(): void {
        this.#events.emit("suspend", undefined)
    }

    /** @internal There is no host: what is edited goes no further than this page until there is one. */
    unserved({ message }: Error): void {
        this.#setStatus({ state: "offline", storageError: message })
    }

    /** @internal Whether the next host, if there is one, must be told of edits. */
    get isNeeded(): boolean {
        return this.#unstored.length > 0
    }

    /** @internal The host cannot go on with it: what is edited goes no further than this page. */
    get isLost(): boolean {
        return this.#isLost
    }

    /** @internal Whether it is of no further use. */
    get isClosed(): boolean {
        return this.#failure !== undefined
    }

    /** @internal Why it is of no further use. */
    get failure(): RepoError | undefined {
        return this.#failure
    }

    /** @internal */
    close(code: FailureCode = "deleted"): void {
        this.#failure ??= new RepoError(code, `the document ${this.url} is not open any more`)
        this.#events.emit("close", undefined)
        this.#events.close()
    }

    /** @internal Vue's `reactive` leaves it as it is: private fields are not there for its proxies. */
    get __v_skip(): true {
        return true
    }

    #post(edit: Edit): void {
        this.#owner.link.post(this.#told(edit))
    }

    #told(edit: Edit): Omit<Entry, "base" | "wiped"> {
        const { documentId: document } = this
        return { type: "edit", document, author: this.#author, edit, seen: this.#seen, named: this.#named }
    }

    /** Edits up to this one are stored, or were of no avail. */
    #forget(seq: number): void {
        const done = this.#unstored.filter(({ edit }) => edit.seq <= seq)
        this.#unstored = this.#unstored.slice(done.length)
        this.#owner.journal?.remove(
            this.#author,
            done.map(({ edit }) => edit.seq),
        )
    }

    #update(message: Extract<HostMessage, { type: "update" }>): void {
        const { update, processed, own, heads, operations, whole } = message
        // It was made without the last edit: another comes.
        if (processed !== this.#seq) return
        const before = this.#events.has("change") ? this.doc() : undefined
        const patches: Patch[] | undefined = before === undefined ? undefined : []
        if (whole) {
            this.#former = this.#tree
            this.#tree = new Tree()
            this.#forget(processed)
        }
        for (const operation of operations) this.#tree.apply(operation, patches)
        this.#base = { seq: processed, heads, behind: [] }
        this.#seen = update
        this.#owner.link.post({ type: "seen", document: this.documentId, update })
        if (patches) {
            const source = own ? "local" : "remote"
            this.#events.emit("change", { doc: this.doc(), before: before as View<T>, patches, source })
        }
    }

    #rename(names: ReadonlyMap<string, string>): void {
        if (names.size === 0) return
        this.#undos.rename(names)
        for (const [name, real] of names) {
            this.#tree.rename(name, real)
            this.#former?.rename(name, real)
        }
        // These may be told to a host that never heard the other names.
        this.#unstored = this.#unstored.map(({ word, edit }) => {
            const operations = edit.operations.map((operation) => {
                const real = names.get(operation[1])
                return real === undefined ? operation : (operation.with(1, real) as Operation)
            })
            return { word, edit: { ...edit, operations } }
        })
    }

    #setStatus(status: SyncStatus): void {
        if (isSame(status, this.#status)) return
        this.#status = status
        this.#owner.statusChanged(this.documentId, status)
        this.#events.emit("status", status)
    }

    #checkOpen(): void {
        // With the stack of who asks.
        if (this.#failure) throw new RepoError(this.#failure.code, this.#failure.message)
    }

    /** What goes with an edit, besides what it does. */
    #note(options: { message?: string }, undo?: string | false): Omit<Edit, "seq" | "operations"> {
        const { author } = this.#owner
        const isFinal = undo === false && { isFinal: true }
        return { ...options, time: Date.now() / 1000, ...(author !== undefined && { by: author }), ...isFinal }
    }

    #object(path: Path | Place): string {
        const node = path instanceof Place ? path.node() : this.#tree.at(listed(path))
        if (!isNode(node)) throw new RangeError(`there is no map, list or text ${where(path)}`)
        return node.id
    }

    /** Of a text or list. */
    #sequence(path: Path | Place): string {
        const id = this.#object(path)
        if (this.#tree.node(id)?.kind === "map") throw new RangeError(`there is no text or list ${where(path)}`)
        return id
    }
}

function listed(path: Path): Path {
    if (!Array.isArray(path)) throw new TypeError("a path is a list of keys and indexes, or a place")
    return path
}

function checked(heads: Heads): Heads {
    if (Array.isArray(heads) && heads.every((head) => typeof head === "string")) return heads
    throw new RepoError("failed", "heads are an array of hashes, as heads() and history() give them")
}

function where(path: Path | Place): string {
    return path instanceof Place ? "any more where it was" : `at /${path.join("/")}`
}

function treeOf(operations: readonly Operation[]): Tree {
    const tree = new Tree()
    for (const operation of operations) tree.apply(operation)
    return tree
}

/** Looked at before anything is changed. */
function noteOf(options: ChangeOptions | undefined): ChangeOptions {
    const { message, undo } = options ?? {}
    if (message !== undefined && typeof message !== "string") throw new TypeError("the message of a change is a string")
    if (undo !== undefined && undo !== false && typeof undo !== "string")
        throw new TypeError("the option undo of a change is false or a name")
    return { ...(message !== undefined && { message }), ...(undo !== undefined && { undo }) }
}

function grouped(changes: readonly ChangeInfo[], seconds: number): ChangeGroup[] {
    const groups: { author?: string; isOwn: boolean; time: number; changes: ChangeInfo[] }[] = []
    // Others' changes may lie between: people who edit at the same time have a group each.
    const last = new Map<string, (typeof groups)[number]>()
    for (const change of changes) {
        const { author, actor, isOwn, time } = change
        const who = author === undefined ? actor : `by ${author}`
        const group = last.get(who)
        if (group && Math.abs(time - group.time) <= seconds) {
            group.time = time
            group.isOwn = isOwn
            group.changes.push(change)
        } else {
            const next = { ...(author !== undefined && { author }), isOwn, time, changes: [change] }
            last.set(who, next)
            groups.push(next)
        }
    }
    return groups
}

/** @internal Since 1970. */
export function seconds(): number {
    return Math.floor(Date.now() / 1000)
}
