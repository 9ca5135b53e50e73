/**
 * What `change` hands out: a document that can be edited as if it were plain JavaScript. Each
 * edit is applied to the tree at once, and noted as the operation that the host will get.
 */

import { Counter, isCounter, isImmutableString, ImmutableString } from "./counter.js"
import { diff, snap } from "./diff.js"
import { isBytes, isDate, isPlain, isStorable } from "./kinds.js"
import type { NewValue, ObjectId, Operation } from "./operations.js"
import {
    child,
    type Entry,
    fixedIn,
    fixedOf,
    isNode,
    ListNode,
    MapNode,
    type Node,
    noteFixed,
    TextNode,
    type Tree,
} from "./tree.js"
import type { DraftPath, Expand, Patch, Path, Prop, Scalar, View } from "./types.js"

/**
 * A document, writable. Its lists have `insertAt(index, ...values)` and `deleteAt(index, count?)`
 * too; they are not in the type, as no plain array could be assigned to such a list then.
 */
export type Draft<T> = T extends string | number | boolean | bigint | symbol | null | undefined
    ? T
    : T extends ImmutableString
      ? ImmutableString | string
      : T extends Date | Uint8Array | Counter
        ? T
        : T extends readonly [] | readonly [unknown, ...unknown[]]
          ? { -readonly [K in keyof T]: Draft<T[K]> }
          : T extends readonly (infer E)[]
            ? DraftList<E>
            : T extends object
              ? { -readonly [K in keyof T]: Draft<T[K]> }
              : T

/** A list in a draft. What is inserted may be readonly, as what a document shows is. */
export interface DraftList<E> extends Array<Draft<E>> {
    push(...values: (Draft<E> | View<E> | E)[]): number
    unshift(...values: (Draft<E> | View<E> | E)[]): number
    splice(start: number, deleted?: number): Draft<E>[]
    splice(start: number, deleted: number, ...values: (Draft<E> | View<E> | E)[]): Draft<E>[]
    fill(value: Draft<E> | View<E> | E, start?: number, end?: number): this
}

/** A range of a text, in UTF-16 code units, without `end`. */
export interface MarkRange {
    /** From this code unit on, */
    start: number
    /** up to but without this one. */
    end: number
    /** What the mark's ends do when text is inserted there; by default, `after`: it grows at its end. */
    expand?: Expand
}

/**
 * Lets `fn` edit the document, and returns what it did, for the host. If `fn` throws or is
 * asynchronous, the tree is as it was before.
 *
 * @param nextId makes a name for a new object: `~1`, `~2`, ...
 * @param patches gets what changed, if given.
 * @internal
 */
export function change<T>(
    tree: Tree,
    fn: (draft: Draft<T>) => unknown,
    nextId: () => ObjectId,
    patches?: Patch[],
): Operation[] {
    tree.begin()
    const edit = new Edit(tree, nextId, patches)
    const patchesBefore = patches?.length
    try {
        const result = fn(edit.draft(tree.root) as Draft<T>) as { then?: unknown } | undefined
        if (typeof result?.then === "function") {
            // It goes on, and fails at its next use of the draft.
            void Promise.resolve(result).catch(() => {})
            throw new TypeError("a change must be synchronous: await first, then change")
        }
        if (edit.operations.length === 0 && sourcesOf(result).includes(tree.root)) {
            throw new TypeError("nothing was changed: edit the draft, as what the function returns is not used")
        }
        edit.checkStored()
    } catch (error) {
        tree.rollback()
        if (patches) patches.length = patchesBefore!
        throw error
    } finally {
        edit.ended = true
    }
    tree.commit()
    return edit.operations
}

/**
 * Edits a text, so that it merges with what others type there. Replaces `deleted` UTF-16 code units
 * from `index` on by `text`. An index within a pair of surrogates means its end.
 *
 * @param draft of a change, or an object in it: `path` begins there.
 * @throws RangeError if the text has no such index; TypeError if there is no text, or a fixed string.
 */
export function splice<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    index: number,
    deleted: number,
    text = "",
): void {
    const { edit, node, at } = textAt(draft, path)
    if (!(deleted >= 0)) throw new RangeError(`cannot delete ${deleted} characters at ${pointer(at())}`)
    if (typeof text !== "string")
        throw new TypeError(`cannot insert ${describe(text)} into the text at ${pointer(at())}`)
    checkIndex(index, node.text.length, at)
    const start = snap(node.text, index)
    const end = snap(node.text, Math.min(index + Math.trunc(deleted), node.text.length))
    edit.splice(node, start, end - start, wellFormed(text))
}

/**
 * Makes a text this one, by as few edits as are found in reasonable time: for inputs that tell only
 * what they hold. {@link splice} tells more exactly what a user did.
 *
 * @throws TypeError if there is no text at `path`, or a fixed string.
 */
export function updateText<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    text: string,
): void {
    const { edit, node, at } = textAt(draft, path)
    if (typeof text !== "string") throw new TypeError(`cannot store ${describe(text)} as the text at ${pointer(at())}`)
    for (const { index, deleted, inserted } of diff(node.text, wellFormed(text))) {
        edit.splice(node, index, deleted, inserted)
    }
}

/**
 * Marks a range of a text: as bold, as a link, ... The value `null` takes a mark away. Marks are not
 * in `doc()`: `DocHandle.marks` lists them.
 *
 * @param value no object but a Date or bytes.
 */
export function mark<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    range: MarkRange,
    name: string,
    value: unknown,
): void {
    const { edit, node, at } = textAt(draft, path)
    const { start, end, expand = "after" } = range
    checkIndex(end, node.text.length, at)
    checkIndex(start, end, at)
    if (typeof name !== "string") throw new TypeError(`cannot mark the text at ${pointer(at())}: a mark has a name`)
    if (!EXPANDS.includes(expand))
        throw new RangeError(`cannot mark the text at ${pointer(at())}: a mark does not expand "${String(expand)}"`)
    const stored = typeof value === "string" ? wellFormed(value) : edit.read(value, at, [])
    if (stored !== null && typeof stored === "object" && ("make" in stored || "counter" in stored)) {
        throw new TypeError(`cannot mark the text at ${pointer(at())} with ${describe(value)}: only with plain values`)
    }
    const [from, to] = [snap(node.text, start), snap(node.text, end)]
    edit.apply(["mark", node.id, from, to, name, stored as Scalar, expand])
}

const EXPANDS: readonly unknown[] = ["none", "before", "after", "both"] satisfies Expand[]

/** Takes a mark away from a range of a text. */
export function unmark<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    range: MarkRange,
    name: string,
): void {
    mark(draft as object, path as Path, range, name, null)
}

/** Begins a block, such as a paragraph, at an index of a text. It takes one place there. */
export function splitBlock<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    index: number,
    block: object,
): void {
    const { edit, node, at } = textAt(draft, path)
    checkIndex(index, node.text.length, at)
    edit.insertBlock(node, snap(node.text, index), block, at)
}

/** Removes the block at an index of a text, so that what follows it belongs to the one before. */
export function joinBlock<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    index: number,
): void {
    const { edit, node } = blockAt(draft, path, index)
    edit.splice(node, index, 1, "")
}

/** Replaces the block at an index of a text. */
export function updateBlock<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    index: number,
    block: object,
): void {
    const { edit, node, at } = blockAt(draft, path, index)
    edit.insertBlock(node, index, block, at, 1)
}

/**
 * Inserts into a list of a draft, before the element at `index`.
 *
 * @throws RangeError unless `index` is from 0 to the list's length.
 */
export function insertAt<E>(list: readonly E[], index: number, ...values: (E | View<E>)[]): void {
    const { edit, node } = listOf(list)
    checkIndex(index, node.items.length, () => edit.tree.path(node))
    edit.spliceList(node, index, 0, values)
}

/**
 * Removes `count` elements from a list of a draft, from `index` on.
 *
 * @throws RangeError if the list has not that many.
 */
export function deleteAt(list: readonly unknown[], index: number, count = 1): void {
    const { edit, node } = listOf(list)
    const at = (): Prop[] => edit.tree.path(node)
    checkIndex(index, node.items.length, at)
    if (!Number.isInteger(count) || count < 0)
        throw new RangeError(`cannot delete ${count} elements at ${pointer(at())}`)
    checkIndex(index + count, node.items.length, at)
    edit.spliceList(node, index, count, [])
}

/**
 * A copy of a draft, or of what a document shows, as plain data that can be changed. Fixed strings in
 * it are stored as fixed ones again.
 */
export function snapshot<T>(value: T): Draft<T> {
    return copied(value) as Draft<T>
}

/** What a map has, if it is a draft, without drafts of it. */
export function entriesOf(draft: object): ReadonlyMap<string, Entry> | undefined {
    const { edit, node } = contextIn(draft) ?? {}
    edit?.checkOpen()
    return node?.kind === "map" ? node.entries : undefined
}

/** Puts all that an object has into a draft. */
export function fill(draft: object, from: object): void {
    const fixed = fixedIn(from)
    for (const [key, value] of Object.entries(from)) {
        ;(draft as Record<string, unknown>)[key] = fixed?.has(key) ? fix(value) : value
    }
}

function copied(value: unknown): unknown {
    if (!isObject(value)) return value
    if (isDate(value)) return new Date(value)
    if (isBytes(value)) return new Uint8Array(value)
    if (isCounter(value)) return new Counter(value.value)
    if (!Array.isArray(value) && !isPlain(value)) return value
    const context = contextIn(value)
    context?.edit.checkOpen()
    const copy = Array.isArray(value)
        ? value.map(copied)
        : Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, copied(inner)]))
    const fixed = context && context.node.kind !== "text" ? fixedOf(context.node) : fixedIn(value)
    noteFixed(copy, [...(fixed ?? [])])
    return copy
}

/** Where something is, when an error has to tell. */
type Place = () => Prop[]

interface Context {
    edit: Edit
    node: Node
    /** What it holds by now, if it was edited since it lost its place in the document: plain data with drafts in it. */
    own?: object | undefined
    /** That, if the object has no place: from now on. */
    loose(): object | undefined
}

/** Where a draft tells what it stands for. */
const CONTEXT = Symbol()

function contextIn(value: object): Context | undefined {
    return (value as { [CONTEXT]?: Context })[CONTEXT]
}

/**
 * What a copy of a draft tells of what: what spreads an object copies its symbols, too, and each draft has
 * one of its own, under which this is. Nobody else is to see it.
 */
class Source {
    readonly #draft: Context

    constructor(draft: Context) {
        this.#draft = draft
    }

    static nodeOf(source: unknown): MapNode[] {
        return source instanceof Source ? [source.#draft.node as MapNode] : []
    }
}

/** The objects that were spread in this one, the last first. */
function sourcesOf(value: unknown): MapNode[] {
    if (!isObject(value) || contextIn(value)) return []
    const symbols = Object.getOwnPropertySymbols(value).reverse()
    return symbols.flatMap((symbol) => Source.nodeOf((value as Record<symbol, unknown>)[symbol]))
}

/** What a draft stands for. */
function nodeIn(value: object): Entry | undefined {
    return contextIn(value)?.node ?? (value instanceof Counter ? DraftCounter.counterOf(value) : undefined)
}

/** How many elements or keys it has. */
function sizeOf(value: object): number {
    return Array.isArray(value) ? value.length : Object.keys(value).length
}

/** An object as it is now, which has no place in the document. */
function past(node: MapNode | ListNode): MapNode | ListNode {
    if (node.kind === "map") {
        const copy = new MapNode(node.id, node.parent, node.key)
        for (const [key, entry] of node.entries) copy.entries.set(key, entry)
        return copy
    }
    const copy = new ListNode(node.id, node.parent, node.key)
    for (const item of node.items) copy.items.push(item)
    return copy
}

/** Whether a value takes the place of an element as what `map` makes of it: a number, or a list of them. */
function isLike(item: Entry, value: unknown): boolean {
    if (isNode(item)) return item.kind === "list" && Array.isArray(value) && !contextIn(value)
    if (typeof item === "string" || item instanceof Counter) return false
    return isObject(value) ? isDate(value) || isBytes(value) : typeof value !== "string" && value !== undefined
}

/** Whether an array is another version of a list in a list: both begin or end with the same. */
function resembles(item: Entry, value: unknown): boolean {
    if (!isLike(item, value) || !Array.isArray(value) || !isNode(item)) return false
    const { items } = item as ListNode
    if (items.length === 0 || value.length === 0) return items.length === value.length
    return [0, -1].some((at) => origins([items.at(at)!], [value.at(at)])[0] === 0)
}

/** How many of so many places are so, one after the other. */
function count(most: number, is: (i: number) => boolean): number {
    for (let i = 0; i < most; i++) if (!is(i)) return i
    return most
}

function isFixed(value: unknown): boolean {
    return isObject(value) && isImmutableString(value)
}

/**
 * Most that a change may weigh: the bytes of the change that the host makes of it are fewer, and
 * nobody keeps one of more than 96 MiB or 16,777,216 operations. What was shown must be kept.
 */
const WEIGHT_MAX = 96 * 1024 * 1024

/** Bytes that an operation has at most, besides its text: its object, key, kind and what it replaces. */
const OPERATION_WEIGHT = 40

/** An element mostly follows on the one before, in the same list. */
const INSERTED_WEIGHT = 20

/** A character is an operation that mostly follows on the one before: 4 bytes, and 3 of UTF-8 at most. */
const CHARACTER_WEIGHT = 7

/** What is removed is named: object, element and operation. */
const REMOVED_WEIGHT = 16

function weightOf(operation: Operation): number {
    switch (operation[0]) {
        case "splice":
            return OPERATION_WEIGHT + operation[3] * REMOVED_WEIGHT + operation[4].length * CHARACTER_WEIGHT
        case "delete":
            return OPERATION_WEIGHT + operation[3] * REMOVED_WEIGHT
        case "insert":
            return operation[3].reduce((sum: number, value) => sum + INSERTED_WEIGHT + weightOfValue(value), 0)
        case "put":
            return OPERATION_WEIGHT + String(operation[2]).length * 3 + weightOfValue(operation[3])
        case "mark":
            return 2 * OPERATION_WEIGHT + operation[4].length * 3 + weightOfValue(operation[5])
        case "increment":
            return OPERATION_WEIGHT + String(operation[2]).length * 3
    }
}

function weightOfValue(value: NewValue): number {
    if (typeof value === "string") return value.length * 3
    if (typeof value !== "object" || value === null) return 0
    if (isBytes(value)) return value.length
    return (("text" in value && value.text?.length) || 0) * CHARACTER_WEIGHT
}

/** One run of `change`. */
class Edit {
    readonly operations: Operation[] = []
    ended = false
    #weight = 0
    #drafts = new Map<Node | Counter, object>()
    /** Objects that get another place. */
    #moving = new Set<Node>()
    /** The new names of objects that got one. */
    #moved: [node: Node, id: ObjectId][] = []
    /** What has drafts stand for what they stood for before, and takes back what else was held. */
    #turned: (() => void)[] = []
    /** What was held of an object, each time that its place was assigned. */
    #pasts = new Map<Node | undefined, (MapNode | ListNode)[]>()
    /** What was stored, and how much it held. */
    #stored: [value: object, size: number][] = []
    /** Objects of which there is a copy, made while they had a place. */
    #copied = new Set<Node>()
    /** Dates and bytes that were handed out or stored, and what they are in the document. */
    #lent = new Map<Date | Uint8Array, Date | Uint8Array>()

    constructor(
        readonly tree: Tree,
        readonly nextId: () => ObjectId,
        readonly patches: Patch[] | undefined,
    ) {}

    checkOpen(): void {
        if (this.ended) throw new TypeError("this draft's change has ended: it cannot be used any more")
    }

    checkWritable(node: Node): void {
        this.checkOpen()
        if (!this.tree.has(node)) throw new TypeError("cannot edit an object that was removed from the document")
    }

    /** Applies an operation, and those that fill what it made. */
    apply(operation: Operation, later: readonly Operation[] = []): void {
        this.#applyOne(operation)
        for (const next of later) this.#applyOne(next)
        for (const [node, id] of this.#moved.splice(0)) this.#follow(node, this.tree.node(id))
    }

    #applyOne(operation: Operation): void {
        this.#weight += weightOf(operation)
        if (this.#weight > WEIGHT_MAX) {
            throw new RangeError(
                "too much for one change, which holds 14 million characters or 2 million values: make several",
            )
        }
        this.tree.apply(operation, this.patches)
        this.operations.push(operation)
    }

    /** The draft of an object that moved stands for it where it is now. */
    #follow(node: Node, to: Node | undefined): void {
        const draft = this.#drafts.get(node)
        if (!draft || !to || contextIn(draft)!.node !== node) return
        this.#turn(draft, node, to)
    }

    /** What is stored is a copy: what is added to the original afterwards would be lost. */
    checkStored(): void {
        for (const [value, size] of this.#stored) {
            if (sizeOf(value) === size) continue
            throw new TypeError(
                "an array or object was stored, and changed afterwards: a document has a copy of it, which is edited in the draft",
            )
        }
        for (const [lent, is] of this.#lent) {
            if (isSameValue(lent, is)) continue
            throw new TypeError(
                "a date or bytes were changed in place: a document has a copy, so assign the changed ones",
            )
        }
    }

    lend<V extends Date | Uint8Array>(lent: V, is: Date | Uint8Array): V {
        this.#lent.set(lent, is)
        return lent
    }

    /** What an object without a place holds when it is edited: from then on it is plain data. */
    loosen(node: MapNode | ListNode): object {
        // In plain JavaScript, this would be an edit of the copy.
        if (this.#copied.has(node))
            throw new TypeError(
                "cannot edit an object that was removed after it was copied: edit the copy, in its place",
            )
        if (node.kind === "list") return node.items.map((item) => this.show(item, node, ""))
        return Object.fromEntries([...node.entries].map(([key, entry]) => [key, this.show(entry, node, key)]))
    }

    /** The proxy for a map or list; always the same one, so that `===` and `indexOf` hold. */
    draft(node: MapNode | ListNode): object {
        let draft = this.#drafts.get(node)
        if (!draft) {
            draft =
                node.kind === "list"
                    ? new Proxy<unknown[]>([], new ListHandler(this, node))
                    : new Proxy({}, new MapHandler(this, node))
            this.#drafts.set(node, draft)
        }
        return draft
    }

    /** What a draft shows. */
    show(entry: Entry | undefined, node: MapNode | ListNode, key: string): unknown {
        if (isNode(entry)) return entry.kind === "text" ? entry.text : this.draft(entry)
        if (entry instanceof Counter) {
            return this.#drafts.get(entry) ?? this.keep(entry, new DraftCounter(this, node, key, entry))
        }
        // The view has these very objects.
        if (isDate(entry)) return this.lend(new Date(entry), entry)
        if (isBytes(entry)) return this.lend(entry.slice(), entry)
        return entry
    }

    keep(counter: Counter, draft: DraftCounter): DraftCounter {
        this.#drafts.set(counter, draft)
        return draft
    }

    /**
     * As an assignment means it: an array edits the list that is there, and a copy of an object that was
     * made by spreading it edits that object. What stays in them remains what it is, also to those who
     * edit it at the same time. Anything else takes the place of what is there.
     */
    put(node: MapNode | ListNode, prop: Prop, value: unknown): void {
        this.checkWritable(node)
        const old = child(node, prop)
        // As in `Object.assign(draft, { ...draft })`.
        if (isObject(value) && old !== undefined && nodeIn(value) === old) return
        if (isObject(value) && isNode(old) && !contextIn(value)) {
            if (old.kind === "list" && Array.isArray(value)) {
                this.#part(old)
                return this.assignList(old, value)
            }
            const isVersion = sourcesOf(value).some(({ id }) => id === old.id)
            if (old.kind === "map" && (isVersion || (old.entries.size === 0 && isPlain(value)))) {
                this.#part(old)
                return this.#assignMap(old, value)
            }
        }
        if (value === undefined && node.kind === "map") return this.delete(node, prop)
        const later: Operation[] = []
        const stored = this.read(ofKind(value, old), () => [...this.tree.path(node), prop], later)
        if (!same(old, stored)) this.apply(["put", node.id, prop, stored], later)
    }

    /**
     * What was handed out for an object goes on to show what that held until now: in plain JavaScript, it
     * has no place in the document any more, and another object takes that.
     */
    #part(node: MapNode | ListNode): void {
        const draft = this.#drafts.get(node)
        const outer = this.#pasts.get(node.parent) ?? []
        if (!draft && outer.length === 0) return
        const was = past(node)
        if (this.#copied.has(node)) this.#copied.add(was)
        for (const held of outer) {
            const prop = held.kind === "list" ? held.items.indexOf(node) : node.key
            if (child(held, prop) !== node) continue
            const hold = (entry: MapNode | ListNode): unknown =>
                held.kind === "list" ? (held.items[prop as number] = entry) : held.entries.set(prop as string, entry)
            hold(was)
            this.#turned.push(() => hold(node))
        }
        const pasts = this.#pasts.get(node) ?? []
        this.#pasts.set(node, [...pasts, was])
        this.#turned.push(() => this.#pasts.set(node, pasts))
        if (!draft) return
        this.#turn(draft, node, was)
        this.#drafts.delete(node)
    }

    /** Has a draft stand for another object, until that is taken back. */
    #turn(draft: object, from: Node, to: Node): void {
        const context = contextIn(draft)!
        const { own } = context
        this.#turned.push(() => {
            this.#drafts.delete(to)
            this.#drafts.set(from, draft)
            context.node = from
            context.own = own
        })
        this.#drafts.set(to, draft)
        context.node = to
        context.own = undefined
    }

    #assignMap(node: MapNode, value: object): void {
        this.#stored.push([value, sizeOf(value)])
        this.#whole(() => {
            for (const key of [...node.entries.keys()]) if (!Object.hasOwn(value, key)) this.delete(node, key)
            const at = (): Prop[] => this.tree.path(node)
            for (const [key, inner] of Object.entries(value)) this.put(node, wellFormed(checkKey(key, at)), inner)
        })
    }

    /** Makes a list this one: what stays is not touched, what moved is removed and inserted anew. */
    assignList(node: ListNode, given: readonly unknown[]): void {
        this.#stored.push([given, given.length])
        // With `undefined` in its holes.
        const values = Array.from(given)
        const items = [...node.items]
        const from = origins(items, values)
        const staying = ascending(from)
        this.#whole(() => {
            const outer = this.#moving
            this.#moving = new Set(outer)
            for (const index of from) if (isNode(items[index])) this.#moving.add(items[index])
            for (const i of staying) this.#moving.delete(items[from[i]!] as Node)
            let [old, index] = [0, 0]
            const upTo = (oldEnd: number, end: number): void => {
                const added = values.slice(index, end).map((value, i) => ofKind(value, items[from[index + i]!]))
                const gone = items.slice(old, oldEnd)
                const isMapped = gone.length === added.length && added.every((value, i) => isLike(gone[i]!, value))
                const most = Math.min(gone.length, added.length)
                // One by one, who changes the same at the same time does not double it.
                const first = isMapped ? most : count(most, (i) => resembles(gone[i]!, added[i]))
                const last = count(most - first, (i) => resembles(gone.at(~i)!, added.at(~i)))
                const [begin, stop] = [index + first, index + added.length]
                for (let i = index; i < begin; i++) this.put(node, i, added[i - index])
                this.spliceList(node, begin, gone.length - first - last, added.slice(first, added.length - last))
                for (let i = stop - last; i < stop; i++) this.put(node, i, added[i - index])
            }
            for (const i of staying) {
                upTo(from[i]!, i)
                ;[old, index] = [from[i]! + 1, i + 1]
                // It is another version of the object, or no text any more.
                if (sourcesOf(values[i]).length > 0 || isFixed(values[i])) this.put(node, i, values[i])
            }
            upTo(items.length, values.length)
            this.#moving = outer
        })
    }

    /** All that `action` does, or nothing of it. */
    #whole(action: () => void): void {
        const [begun, weight, moving] = [this.tree.done, this.#weight, this.#moving]
        const [operations, patches, turned] = [this.operations.length, this.patches?.length, this.#turned.length]
        try {
            action()
        } catch (error) {
            for (const back of this.#turned.splice(turned).reverse()) back()
            this.#moved = []
            this.#moving = moving
            this.tree.takeBack(begun)
            this.operations.length = operations
            if (this.patches) this.patches.length = patches!
            this.#weight = weight
            throw error
        }
    }

    delete(node: MapNode | ListNode, prop: Prop): void {
        this.checkWritable(node)
        if (child(node, prop) !== undefined) this.apply(["delete", node.id, prop, 1])
    }

    splice(node: TextNode, index: number, deleted: number, text: string): void {
        if (deleted > 0 || text) this.apply(["splice", node.id, index, deleted, text])
    }

    insertBlock(node: TextNode, index: number, block: object, at: Place, replaced = 0): void {
        const later: Operation[] = []
        const value = this.read(block, () => [...at(), index], later)
        if (!isObject(value) || !("make" in value) || value.make !== "map") {
            throw new TypeError(`a block must be a plain object, at ${pointer([...at(), index])}`)
        }
        this.splice(node, index, replaced, "")
        this.apply(["insert", node.id, index, [value]], later)
    }

    spliceList(node: ListNode, index: number, deleted: number, values: readonly unknown[]): void {
        this.checkWritable(node)
        const later: Operation[] = []
        // Of a list of fixed strings, by its first.
        const kind = typeof node.items[0] === "string" ? node.items[0] : undefined
        const at = (i: number): Prop[] => [...this.tree.path(node), index + i]
        const stored = values.map((value, i) => this.read(ofKind(value, kind), () => at(i), later))
        // In the order that Automerge's own drafts have, so that both end alike when others insert here too.
        if (stored.length > 0) this.apply(["insert", node.id, index, stored], later)
        if (deleted > 0) this.apply(["delete", node.id, index + stored.length, deleted])
    }

    /**
     * A value as it is stored, of its own: what the caller does with it later is of no effect.
     *
     * @param later gets the operations that fill it, if it is an object. Nothing is applied
     * before all of it is known to be fine.
     */
    read(value: unknown, at: Place, later: Operation[], within: readonly object[] = []): NewValue {
        switch (typeof value) {
            case "boolean":
                return value
            case "string":
                return { make: "text", id: this.nextId(), text: wellFormed(value) }
            case "number":
                // Automerge does not know -0.
                return value + 0
            case "bigint":
                if (!isStorable(value)) throw refusal(value, at, "an integer has at most 64 bits")
                // As it will be read.
                return Number.isSafeInteger(Number(value)) ? Number(value) : value
            case "undefined":
                throw refusal(value, at, "a list has no holes; store null")
            case "object":
                return value === null ? null : this.#readObject(value, at, later, within)
            default:
                throw refusal(value, at, "a document holds data only")
        }
    }

    #readObject(value: object, at: Place, later: Operation[], within: readonly object[]): NewValue {
        if (isCounter(value)) {
            if (!Number.isSafeInteger(value.value)) throw refusal(value.value, at, "a counter counts whole numbers")
            return { counter: value.value }
        }
        if (isImmutableString(value)) {
            if (typeof value.val !== "string") throw refusal(value.val, at, "a fixed string is a string")
            return wellFormed(value.val)
        }
        if (isDate(value)) {
            if (Number.isNaN(value.getTime())) throw refusal("an invalid date", at, "")
            return this.#kept(value, new Date(value))
        }
        if (isBytes(value)) return this.#kept(value, new Uint8Array(value))
        if (within.includes(value)) throw refusal("an object that contains itself", at, "")
        const inside = [...within, value]
        const context = contextIn(value)
        if (!context) this.#stored.push([value, sizeOf(value)])
        else if (!context.own) return this.#copyOf(context, at, later, inside)
        return this.#readParts(context ? context.own! : value, at, later, inside, context)
    }

    /** A copy of a date or of bytes, which goes on to be what is stored. */
    #kept<V extends Date | Uint8Array>(value: Date | Uint8Array, copy: V): V {
        this.#lent.set(value, copy)
        return copy
    }

    /** @param loose what the value stands for, if it is that of a draft. */
    #readParts(value: object, at: Place, later: Operation[], inside: readonly object[], loose?: Context): NewValue {
        loose?.edit.checkOpen()
        const id = this.nextId()
        const was = loose && loose.node
        if (loose?.edit === this) this.#moved.push([loose.node, id])
        if (Array.isArray(value)) {
            const values: NewValue[] = []
            if (value.length > 0) later.push(["insert", id, 0, values])
            const fixed = fixedIn(value)
            const kind = was?.kind === "list" ? was.items[0] : undefined
            for (let i = 0; i < value.length; i++) {
                const inner: unknown = fixed?.has(`${i}`) ? fix(value[i]) : ofKind(value[i], kind)
                values.push(this.read(inner, () => [...at(), i], later, inside))
            }
            return { make: "list", id }
        }
        if (!isPlain(value))
            throw refusal(
                value,
                at,
                "only plain objects, arrays, Date, Uint8Array, Counter and ImmutableString are stored",
            )
        const fixed = fixedIn(value)
        const sources = was?.kind === "map" ? [was] : sourcesOf(value)
        for (const [key, it] of Object.entries(value)) {
            // As where its type says that it may be missing.
            if (it === undefined) continue
            const source = sources.find(({ entries }) => entries.has(key))
            const inner: unknown = fixed?.has(key) ? fix(it) : ofKind(it, source?.entries.get(key))
            const place = (): Prop[] => [...at(), key]
            const index = later.push(["put", id, checkKey(key, place), null]) - 1
            later[index] = ["put", id, wellFormed(key), this.read(inner, place, later, inside)]
        }
        return { make: "map", id }
    }

    /** A copy of an object of a draft. If it was removed or moves, this is where it is from now on. */
    #copyOf({ edit, node }: Context, at: Place, later: Operation[], within: readonly object[]): NewValue {
        edit.checkOpen()
        let isMoving = false
        for (let at: Node | undefined = node; at; at = at.parent) isMoving ||= this.#moving.has(at)
        const copy = (entry: Entry): NewValue => {
            if (entry instanceof Counter) return { counter: entry.value }
            if (!isNode(entry)) return isDate(entry) ? new Date(entry) : isBytes(entry) ? entry.slice() : entry
            const draft = edit.#drafts.get(entry)
            const is = draft && contextIn(draft)
            if (is && (is.own || is.node !== entry)) return this.read(draft, at, later, within)
            return this.#copy(entry, later, copy, edit === this && (isMoving || !this.tree.has(entry)))
        }
        return copy(node)
    }

    #copy(entry: Node, later: Operation[], copy: (inner: Entry) => NewValue, isMoving: boolean): NewValue {
        const id = this.nextId()
        if (isMoving) this.#moved.push([entry, id])
        else this.#copied.add(entry)
        if (entry.kind === "text") return { make: "text", id, text: entry.text }
        if (entry.kind === "list") {
            const values: NewValue[] = []
            if (entry.items.length > 0) later.push(["insert", id, 0, values])
            for (const item of entry.items) values.push(copy(item))
        } else {
            for (const [key, inner] of entry.entries) {
                const index = later.push(["put", id, key, null]) - 1
                later[index] = ["put", id, key, copy(inner)]
            }
        }
        return { make: entry.kind, id }
    }
}

/** A string in the place of a fixed one is one too. */
function ofKind(value: unknown, old: Entry | undefined): unknown {
    return typeof old === "string" ? fix(value) : value
}

function fix(value: unknown): unknown {
    return typeof value === "string" ? new ImmutableString(value) : value
}

/**
 * For each of `values`, which of `items` it is: an object by what it is or was copied from, anything
 * else by its value. None of them twice; -1 for what is new.
 */
function origins(items: readonly Entry[], values: readonly unknown[]): number[] {
    // Objects by what they are, or as they were shown.
    const known = new Map<unknown, string>()
    const ids = new Set<string>()
    for (const item of items) {
        if (!isNode(item) || item.kind === "text") continue
        known.set(item, `o${item.id}`)
        ids.add(item.id)
        if (!item.stale) known.set(item.shown, `o${item.id}`)
    }
    const drafted = new Set(values.map((value) => isObject(value) && known.get(nodeIn(value))))
    const keys = values.map((value) => {
        // The object itself goes before its copies.
        const source = sourcesOf(value).find(({ id }) => ids.has(id) && !drafted.has(`o${id}`))
        return source ? `o${source.id}` : valueKey(value, known)
    })
    const itemKeys = items.map(itemKey)

    const from = keys.map(() => -1)
    const shorter = Math.min(keys.length, itemKeys.length)
    let start = 0
    for (; start < shorter && keys[start] === itemKeys[start]; start++) from[start] = start
    let [end, itemsEnd] = [keys.length, itemKeys.length]
    for (; Math.min(end, itemsEnd) > start && keys[end - 1] === itemKeys[itemsEnd - 1];) from[--end] = --itemsEnd
    const places = new Map<unknown, number[]>()
    for (let i = itemsEnd - 1; i >= start; i--) {
        const same = places.get(itemKeys[i])
        if (same) same.push(i)
        else places.set(itemKeys[i], [i])
    }
    for (let i = start; i < end; i++) from[i] = places.get(keys[i])?.pop() ?? -1
    return from
}

/** What tells an element from others, and is the same for equal values that are no objects. */
function itemKey(item: Entry): unknown {
    if (item instanceof TextNode) return item.blocks.length === 0 ? `s${item.text}` : item
    if (isNode(item)) return `o${item.id}`
    return item instanceof Counter ? item : valueKey(item)
}

function valueKey(value: unknown, known?: ReadonlyMap<unknown, string>): unknown {
    if (typeof value === "string") return `s${wellFormed(value)}`
    if (typeof value === "bigint" && Number.isSafeInteger(Number(value))) return Number(value)
    if (Number.isNaN(value)) return "NaN"
    if (!isObject(value)) return value
    if (isDate(value)) return `d${value.getTime()}`
    if (isBytes(value)) return `b${value.join()}`
    if (isImmutableString(value)) return `s${wellFormed(value.val)}`
    return known?.get(nodeIn(value) ?? value) ?? nodeIn(value) ?? value
}

/** A longest sequence of indexes whose numbers ascend; those with a negative number are in none. */
function ascending(numbers: readonly number[]): number[] {
    // The last index of the best sequence of each length, and what comes before each index.
    const [last, before]: [number[], number[]] = [[], []]
    numbers.forEach((number, index) => {
        if (number < 0) return
        let [low, high] = [0, last.length]
        while (low < high) {
            const middle = (low + high) >> 1
            if (numbers[last[middle]!]! < number) low = middle + 1
            else high = middle
        }
        before[index] = last[low - 1] ?? -1
        last[low] = index
    })
    const sequence: number[] = []
    for (let index = last.at(-1) ?? -1; index >= 0; index = before[index]!) sequence.push(index)
    return sequence.reverse()
}

class DraftCounter extends Counter {
    #edit: Edit
    #node: MapNode | ListNode
    #key: string
    #counter: Counter

    /** The counter that a draft of one stands for. */
    static counterOf(value: object): Counter | undefined {
        return #counter in value ? value.#counter : undefined
    }

    constructor(edit: Edit, node: MapNode | ListNode, key: string, counter: Counter) {
        super(counter.value)
        this.#edit = edit
        this.#node = node
        this.#key = key
        this.#counter = counter
    }

    override increment(by = 1): void {
        const [edit, node] = [this.#edit, this.#node]
        // In a list, it may have another index by now.
        const prop = node.kind === "list" ? node.items.indexOf(this.#counter) : this.#key
        const isLoose = contextIn(edit.draft(node))!.loose()
        if (!isLoose && child(node, prop) !== this.#counter)
            throw new TypeError("cannot change a counter that was removed from the document")
        if (!Number.isSafeInteger(by) || !Number.isSafeInteger(this.value + by)) {
            throw new RangeError(`cannot add ${by} to the counter at ${pointer([...edit.tree.path(node), prop])}`)
        }
        if (isLoose) (this as { value: number }).value += by
        if (isLoose || by === 0) return
        edit.apply(["increment", node.id, prop, by])
        this.#counter = child(node, prop) as Counter
        edit.keep(this.#counter, this)
        ;(this as { value: number }).value = this.#counter.value
    }
}

/** What maps and lists have in common. */
class Handler<N extends MapNode | ListNode> {
    own: object | undefined

    constructor(
        readonly edit: Edit,
        public node: N,
    ) {}

    defineProperty(): boolean {
        return false
    }

    preventExtensions(): boolean {
        return false
    }

    setPrototypeOf(): boolean {
        return false
    }

    protected open(): N {
        this.edit.checkOpen()
        return this.node
    }

    loose(): object | undefined {
        this.edit.checkOpen()
        if (!this.edit.tree.has(this.node)) this.own ??= this.edit.loosen(this.node)
        return this.own
    }

    protected property(value: unknown): PropertyDescriptor {
        return { value, writable: true, enumerable: true, configurable: true }
    }
}

class MapHandler extends Handler<MapNode> implements ProxyHandler<object> {
    readonly #source = Symbol("copy of")
    /** The key that was asked for and not read yet, and whether all were read that were asked for. */
    #asked: string | symbol | undefined
    #isCopying = false
    #wasRead = false
    /** Keys that were read one after the other: `{ a, b, ...rest }` reads all that it does not copy first. */
    #read = new Set<string | symbol>()

    get(target: object, key: string | symbol): unknown {
        if (key === CONTEXT) return this
        if (key === this.#source) return new Source(this)
        if (key === this.#asked) {
            this.#asked = undefined
            this.#wasRead = true
        }
        this.#read.add(key)
        return this.#show(target, key)
    }

    #show(target: object, key: string | symbol): unknown {
        const { entries } = this.open()
        if (this.own) return Reflect.get(this.own, key)
        const entry = entries.get(key as string)
        return entry === undefined ? Reflect.get(target, key) : this.edit.show(entry, this.node, key as string)
    }

    set(_: object, key: string | symbol, value: unknown): boolean {
        if (value instanceof Source) return true
        const own = this.loose()
        if (own) return Reflect.set(own, key, value)
        const place = (): Prop[] => [...this.edit.tree.path(this.node), String(key)]
        this.edit.put(this.node, wellFormed(checkKey(key, place)), value)
        return true
    }

    deleteProperty(_: object, key: string | symbol): boolean {
        const own = this.loose()
        if (own) return Reflect.deleteProperty(own, key)
        this.edit.delete(this.node, key as string)
        return true
    }

    has(target: object, key: string | symbol): boolean {
        return this.#has(key) || Reflect.has(target, key)
    }

    #has(key: string | symbol): boolean {
        const { entries } = this.open()
        return this.own ? Object.hasOwn(this.own, key) : entries.has(key as string)
    }

    /**
     * What copies an object asks for each key and reads it before it asks for the next; to compare two
     * objects, or to list keys, all are asked for first. If `rest` leaves out all keys, none is asked for.
     */
    ownKeys(): (string | symbol)[] {
        const { entries } = this.open()
        const keys = this.own ? Reflect.ownKeys(this.own) : [...entries.keys()]
        this.#asked = undefined
        this.#isCopying = true
        this.#wasRead = keys.length > 0 && keys.every((key) => this.#read.has(key))
        this.#read.clear()
        return [...keys, this.#source]
    }

    getOwnPropertyDescriptor(target: object, key: string | symbol): PropertyDescriptor | undefined {
        if (this.#asked !== undefined) this.#isCopying = false
        if (key === this.#source) return { ...this.property(undefined), enumerable: this.#isCopying && this.#wasRead }
        this.#wasRead = false
        if (!this.#has(key)) return undefined
        this.#asked = key
        return this.property(this.#show(target, key))
    }
}

/** Array's own methods work on this too, by index and length; those that move elements are replaced. */
class ListHandler extends Handler<ListNode> implements ProxyHandler<unknown[]> {
    get(target: unknown[], key: string | symbol): unknown {
        if (key === CONTEXT) return this
        const { items } = this.open()
        if (this.own) return Reflect.get(this.own, key)
        const index = indexOf(key)
        if (index !== undefined) return this.edit.show(items[index], this.node, "")
        if (key === "length") return items.length
        return Reflect.get(this.edit.tree.has(this.node) && Object.hasOwn(methods, key) ? methods : target, key)
    }

    set(_: unknown[], key: string | symbol, value: unknown): boolean {
        const own = this.loose()
        if (own) return Reflect.set(own, key, value)
        const { items } = this.node
        const at = (): Prop[] => this.edit.tree.path(this.node)
        const index = key === "length" ? (value as number) : indexOf(key)
        if (index === undefined) throw new TypeError(`cannot set ${String(key)} of the list at ${pointer(at())}`)
        checkIndex(index, items.length, at)
        if (key === "length") this.edit.spliceList(this.node, index, items.length - index, [])
        else if (index === items.length) this.edit.spliceList(this.node, index, 0, [value])
        else this.edit.put(this.node, index, value)
        return true
    }

    /** As in Automerge, what follows moves up: a list has no holes. */
    deleteProperty(_: unknown[], key: string | symbol): boolean {
        const own = this.loose()
        if (own) return Reflect.deleteProperty(own, key)
        this.edit.delete(this.node, indexOf(key) ?? -1)
        return true
    }

    has(target: unknown[], key: string | symbol): boolean {
        const { items } = this.open()
        if (this.own) return Reflect.has(this.own, key)
        const index = indexOf(key)
        if (index !== undefined) return index < items.length
        return Object.hasOwn(methods, key) || Reflect.has(target, key)
    }

    ownKeys(): (string | symbol)[] {
        const { items } = this.open()
        return this.own ? Reflect.ownKeys(this.own) : [...items.keys()].map(String).concat("length")
    }

    getOwnPropertyDescriptor(target: unknown[], key: string | symbol): PropertyDescriptor | undefined {
        const { length } = (this.own as unknown[] | undefined) ?? this.open().items
        if (key === "length") return { value: length, writable: true, enumerable: false, configurable: false }
        return (indexOf(key) ?? length) < length ? this.property(this.get(target, key)) : undefined
    }
}

/** The methods of draft lists that differ from Array's. */
const methods = {
    push(...values: unknown[]): number {
        const { edit, node } = listOf(this)
        edit.spliceList(node, node.items.length, 0, values)
        return node.items.length
    },

    unshift(...values: unknown[]): number {
        const { edit, node } = listOf(this)
        edit.spliceList(node, 0, 0, values)
        return node.items.length
    },

    pop(): unknown {
        return methods.splice.call(this, -1, 1)[0]
    },

    shift(): unknown {
        return methods.splice.call(this, 0, 1)[0]
    },

    splice(...args: [start?: number, deleted?: number, ...values: unknown[]]): unknown[] {
        const { edit, node } = listOf(this)
        const { length } = node.items
        const [start, deleted, ...values] = args
        const index = relative(start, length)
        const count =
            args.length < 2 ? (args.length && length) - index : relative(Math.max(deleted ?? 0, 0), length - index)
        const removed = node.items.slice(index, index + Math.max(count, 0)).map((entry) => edit.show(entry, node, ""))
        edit.spliceList(node, index, removed.length, values)
        return removed
    },

    insertAt(index: number, ...values: unknown[]): unknown {
        insertAt(this as unknown as unknown[], index, ...values)
        return this
    },

    deleteAt(index: number, count?: number): unknown {
        deleteAt(this as unknown as unknown[], index, count)
        return this
    },

    fill(value: unknown, start?: number, end?: number): unknown {
        const { edit, node } = listOf(this)
        const { length } = node.items
        const to = end === undefined ? length : relative(end, length)
        for (let index = relative(start, length); index < to; index++) edit.put(node, index, value)
        return this
    },

    sort(compare?: (one: unknown, other: unknown) => number): unknown {
        return rearranged(this, (values) => values.sort(compare))
    },

    reverse(): unknown {
        return rearranged(this, (values) => values.reverse())
    },

    copyWithin(target: number, start: number, end?: number): unknown {
        return rearranged(this, (values) => values.copyWithin(target, start, end))
    },
}

function rearranged(list: object, action: (values: unknown[]) => void): object {
    const { edit, node } = listOf(list)
    edit.checkWritable(node)
    const values = node.items.map((item) => edit.show(item, node, ""))
    action(values)
    edit.assignList(node, values)
    return list
}

/** An index as Array's methods take it: negative ones count from the end. */
function relative(index: number | undefined, length: number): number {
    const whole = Math.trunc(Number(index)) || 0
    return whole < 0 ? Math.max(length + whole, 0) : Math.min(whole, length)
}

function contextOf(draft: object): Context {
    const context = isObject(draft) && contextIn(draft)
    if (!context) throw new TypeError("only the draft of a change can be edited")
    context.edit.checkOpen()
    return context
}

function listOf(list: object): { edit: Edit; node: ListNode } {
    const { edit, node } = contextOf(list)
    if (node.kind !== "list") throw new TypeError(`there is no list at ${pointer(edit.tree.path(node))}`)
    return { edit, node }
}

function textAt(draft: object, path: Path): { edit: Edit; node: TextNode; at: Place } {
    const { edit, node } = contextOf(draft)
    edit.checkWritable(node)
    const entry = edit.tree.at(path, node)
    const at = (): Prop[] => [...edit.tree.path(node), ...path]
    if (typeof entry === "string")
        throw new TypeError(`the string at ${pointer(at())} is fixed: it can only be replaced`)
    if (!(entry instanceof TextNode)) throw new TypeError(`there is no text at ${pointer(at())}`)
    return { edit, node: entry, at }
}

function blockAt(draft: object, path: Path, index: number): { edit: Edit; node: TextNode; at: Place } {
    const text = textAt(draft, path)
    if (!child(text.node, index)) throw new RangeError(`there is no block at ${pointer([...text.at(), index])}`)
    return text
}

function checkIndex(index: number, length: number, at: Place): void {
    if (!Number.isInteger(index) || index < 0 || index > length) {
        throw new RangeError(`there is no index ${String(index)} at ${pointer(at())}: it must be from 0 to ${length}`)
    }
}

function checkKey(key: string | symbol, at: Place): string {
    if (typeof key !== "string") throw new TypeError(`cannot use a symbol as a key, at ${pointer(at())}`)
    // Automerge refuses it too: a copy of the document would get another prototype.
    if (key === "__proto__") throw new TypeError(`cannot use __proto__ as a key, at ${pointer(at())}`)
    return key
}

/** The index that a property names, if it is one. */
function indexOf(key: string | symbol): number | undefined {
    return typeof key === "string" && /^(0|[1-9]\d*)$/.test(key) ? Number(key) : undefined
}

function isSameValue(one: unknown, other: unknown): boolean {
    if (!isObject(one) || !isObject(other)) return false
    if (isDate(one)) return isDate(other) && Object.is(one.getTime(), other.getTime())
    if (!isBytes(one) || !isBytes(other)) return false
    return one.length === other.length && one.every((byte, i) => byte === other[i])
}

function same(old: Entry | undefined, stored: NewValue): boolean {
    if (!isObject(stored)) return Object.is(old, stored)
    if (isDate(stored) || isBytes(stored)) return isSameValue(old, stored)
    if (!("make" in stored) || stored.make !== "text") return false
    // Another text object would lose what others type in this one.
    return old instanceof TextNode ? old.text === stored.text && old.blocks.length === 0 : old === stored.text
}

function isObject<T>(value: T): value is T & object {
    return typeof value === "object" && value !== null
}

/** Documents hold no halves of surrogate pairs; the host would replace them likewise. */
function wellFormed(text: string): string {
    return text.replace(/\p{Surrogate}/gu, "\uFFFD")
}

function refusal(value: unknown, at: Place, reason: string): TypeError {
    const what = typeof value === "string" ? value : describe(value)
    return new TypeError(`cannot store ${what} at ${pointer(at())}${reason && `: ${reason}`}`)
}

function describe(value: unknown): string {
    if (isObject(value)) return `an instance of ${value.constructor?.name || "an unknown class"}`
    return typeof value === "function" || typeof value === "symbol" ? `a ${typeof value}` : String(value)
}

function pointer(path: Path): string {
    return "/" + path.map((prop) => String(prop).replaceAll("~", "~0").replaceAll("/", "~1")).join("/")
}
