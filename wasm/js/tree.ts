/**
 * A document as the page sees it: objects by name, changed in place by operations, and shown as
 * frozen plain data. There are no conflicts, no marks and no history here; the host has them.
 */

import { Counter } from "./counter.js"
import { isBytes, isDate } from "./kinds.js"
import { type NewObject, type NewValue, type ObjectId, type Operation, ROOT } from "./operations.js"
import type { Patch, PatchValue, Path, Prop } from "./types.js"

/** An operation does not fit: the view is not what the host takes it for, and must be read anew. */
export class ViewError extends Error {
    override name = "ViewError"
}

/** A value that is no object; a string is a fixed one. */
export type Leaf = null | boolean | number | bigint | string | Date | Uint8Array | Counter
export type Entry = Leaf | Node
export type Node = MapNode | ListNode | TextNode

class ObjectNode {
    /** Of the root, undefined. It stays when the node is removed. */
    readonly parent: Node | undefined
    /** Its key, if the parent is a map. */
    readonly key: string
    id: ObjectId
    /** The frozen data made of it, */
    shown: unknown
    /** which is not up to date if this is set; it has the children that are not either. Then it is set in all above, too. */
    stale: Node[] | undefined = []
    /** Whether there is more to do than to show those children. */
    changed = true

    constructor(id: ObjectId, parent?: Node, key = "") {
        this.id = id
        this.parent = parent
        this.key = key
    }
}

export class MapNode extends ObjectNode {
    readonly kind = "map"
    readonly entries = new Map<string, Entry>()
    /** The keys as they were last shown. */
    sorted: readonly string[] = []
}

export class ListNode extends ObjectNode {
    readonly kind = "list"
    readonly items: Entry[] = []
}

export class TextNode extends ObjectNode {
    readonly kind = "text"
    text = ""
    /** The maps that stand in the text, each as one U+FFFC, in order. Replaced, not changed. */
    blocks: readonly { readonly at: number; readonly node: Node }[] = []
}

/** Stands for a block. */
const BLOCK = "\uFFFC"

const kinds = { map: MapNode, list: ListNode, text: TextNode }

export class Tree {
    readonly root = new MapNode(ROOT)
    #nodes = new Map<ObjectId, Node>([[ROOT, this.root]])
    /** What takes back the edits since `begin`, the last one first. */
    #undo: (() => void)[] | undefined

    /**
     * The document, or an object in it, as frozen plain data; what did not change since the last
     * time is the same object. Only dates and bytes cannot be frozen: they must not be changed.
     */
    view(node: Node = this.root): unknown {
        if (!node.stale) return node.shown
        // What is inside first, without recursion: how deep a document is, others decide.
        const pending = [node]
        for (let top = node; pending.length > 0; top = pending[pending.length - 1]!) {
            const { length } = pending
            for (const inner of top.stale ?? []) if (inner.stale) pending.push(inner)
            if (pending.length > length) continue
            if (top.stale) top.shown = show(top, top.stale)
            top.stale = undefined
            top.changed = false
            pending.pop()
        }
        return node.shown
    }

    /** The object of this name, if it is in the document. */
    node(id: ObjectId): Node | undefined {
        return this.#nodes.get(id)
    }

    /** Whether the object has not been removed. */
    has(node: Node): boolean {
        return this.#nodes.get(node.id) === node
    }

    /** What lies at a path from an object. An index of a text leads to the block there. */
    at(path: Path, from: Node = this.root): Entry | undefined {
        let entry: Entry | undefined = from
        for (const prop of path) {
            if (!isNode(entry)) return undefined
            entry = child(entry, prop)
        }
        return entry
    }

    path(node: Node): Prop[] {
        const path: Prop[] = []
        for (let at: Node = node; at.parent; at = at.parent) {
            const parent: Node = at.parent
            path.push(parent.kind === "map" ? at.key : indexIn(parent, at))
        }
        return path.reverse()
    }

    /**
     * Changes the document. Of an object that is not there nothing is changed, and false
     * returned: an edit of this page may have removed it, before the host heard of that.
     *
     * @param patches gets what changed, if given.
     * @throws ViewError if the operation does not fit what is there.
     */
    apply(operation: Operation, patches?: Patch[]): boolean {
        if (!Array.isArray(operation) || typeof operation[1] !== "string") throw new ViewError("this is no operation")
        const node = this.#nodes.get(operation[1])
        if (!node) return false
        if (!this.#perform(node, operation) || !patches) return true
        const tell = (patch: Patch, text?: ObjectId): void => {
            changed.set(patch, text === undefined ? node : this.#nodes.get(text)!)
            patches.push(patch)
        }
        describe(operation, this.path(node), tell, node.kind === "text" ? node.text.length : 0)
        return true
    }

    /** Gives whether anything is to be told of it. */
    #perform(node: Node, operation: Operation): boolean {
        switch (operation[0]) {
            case "put":
                this.#put(node, operation[2], operation[3])
                return true
            case "insert":
                this.#insert(node, operation[2], operation[3])
                return true
            case "delete":
                return this.#delete(node, operation[2], operation[3])
            case "splice":
                this.#splice(node, operation[2], operation[3], operation[4])
                return true
            case "increment":
                this.#increment(node, operation[2], operation[3])
                return true
            case "mark":
                // Marks are not in the view.
                if (node.kind !== "text") throw this.#misfit(node, "mark")
                return true
            default:
                throw new ViewError(`there is no operation ${String(operation[0])}`)
        }
    }

    /** Gives an object the name that the host has for it. */
    rename(from: ObjectId, to: ObjectId): void {
        const node = this.#nodes.get(from)
        if (!node || from === to) return
        if (this.#nodes.has(to)) throw new ViewError(`there are two objects ${to}`)
        this.#nodes.delete(from)
        this.#nodes.set(to, node)
        node.id = to
        this.#undo?.push(() => this.rename(to, from))
    }

    /** From here on, what is done can be taken back, with `rollback`, until `commit`. */
    begin(): void {
        if (this.#undo) throw new Error("a change of a document cannot be made within another one of it")
        // What was never shown would not be remembered.
        this.view()
        this.#undo = []
    }

    commit(): void {
        this.#undo = undefined
    }

    rollback(): void {
        this.takeBack(0)
        this.#undo = undefined
    }

    /** How much was done since `begin`; that can be gone back to. */
    get done(): number {
        return this.#undo?.length ?? 0
    }

    takeBack(done: number): void {
        const undo = this.#undo ?? []
        this.#undo = undefined
        for (const step of undo.splice(done).reverse()) step()
        this.#undo = undo
    }

    #put(node: Node, prop: Prop, value: NewValue): void {
        if (node.kind === "text") throw this.#misfit(node, "put")
        const old = this.#entry(node, prop)
        if (node.kind === "list" && old === undefined) throw this.#misfit(node, "put", prop)
        this.#remove(old)
        this.#set(node, prop, this.#make(value, node, prop))
    }

    #insert(node: Node, index: number, values: NewValue[]): void {
        if (node.kind === "map" || !Array.isArray(values)) throw this.#misfit(node, "insert")
        this.#checkRange(node, index, 0)
        const entries = values.map((value) => this.#make(value, node, index))
        if (node.kind === "list") {
            this.#replaceItems(node, index, 0, entries)
        } else {
            const blocks = entries.map((entry, i) => {
                if (!(entry instanceof MapNode)) throw this.#misfit(node, "insert")
                return { at: index + i, node: entry }
            })
            this.#replaceText(node, index, 0, BLOCK.repeat(entries.length), blocks)
        }
    }

    #delete(node: Node, prop: Prop, count: number): boolean {
        if (node.kind === "text") {
            this.#splice(node, prop as number, count, "")
            return true
        }
        const old = this.#entry(node, prop)
        if (node.kind === "map") {
            if (old === undefined) return false
            this.#remove(old)
            this.#set(node, prop, undefined)
        } else {
            this.#checkRange(node, prop, count)
            for (const item of this.#replaceItems(node, prop as number, count, [])) this.#remove(item)
        }
        return true
    }

    #splice(node: Node, index: number, deleted: number, text: string): void {
        if (node.kind !== "text" || typeof text !== "string") throw this.#misfit(node, "splice")
        this.#checkRange(node, index, deleted)
        this.#replaceText(node, index, deleted, text, [])
    }

    #increment(node: Node, prop: Prop, by: number): void {
        const old = node.kind === "text" ? undefined : this.#entry(node, prop)
        if (!(old instanceof Counter) || typeof by !== "number") throw this.#misfit(node, "increment", prop)
        this.#set(node as MapNode | ListNode, prop, Object.freeze(new Counter(old.value + by)))
    }

    #entry(node: MapNode | ListNode, prop: Prop): Entry | undefined {
        if (typeof prop !== (node.kind === "map" ? "string" : "number")) throw this.#misfit(node, "this", prop)
        return child(node, prop)
    }

    #make(value: NewValue, parent: Node, prop: Prop): Entry {
        if (typeof value !== "object" || value === null) {
            if (value === undefined || typeof value === "function") throw this.#misfit(parent, "a value", prop)
            return value
        }
        if (isDate(value) || isBytes(value)) return value
        if (!("make" in value)) {
            if (typeof value.counter !== "number") throw this.#misfit(parent, "a value", prop)
            return Object.freeze(new Counter(value.counter))
        }
        const { make, id, text } = value
        if (typeof id !== "string" || !Object.hasOwn(kinds, make)) throw this.#misfit(parent, "a value", prop)
        if (this.#nodes.has(id)) throw new ViewError(`there are two objects ${id}`)
        const node = new kinds[make](id, parent, typeof prop === "string" ? prop : "")
        if (node.kind === "text") node.text = typeof text === "string" ? text : ""
        this.#nodes.set(id, node)
        this.#undo?.push(() => this.#nodes.delete(id))
        this.#touch(parent)
        parent.stale!.push(node)
        return node
    }

    /** Forgets an object and all that is in it. */
    #remove(entry: Entry | undefined): void {
        const removed = isNode(entry) ? [entry] : []
        for (const node of removed) {
            this.#nodes.delete(node.id)
            for (const inner of inside(node)) if (isNode(inner)) removed.push(inner)
        }
        if (removed.length > 0) this.#undo?.push(() => removed.forEach((node) => this.#nodes.set(node.id, node)))
    }

    #set(node: MapNode | ListNode, prop: Prop, entry: Entry | undefined): void {
        this.#touch(node)
        const old = child(node, prop)
        const set = (entry: Entry | undefined): void => {
            if (node.kind === "list") node.items[prop as number] = entry!
            else if (entry === undefined) node.entries.delete(prop as string)
            else node.entries.set(prop as string, entry)
        }
        set(entry)
        this.#undo?.push(() => set(old))
    }

    #replaceItems(node: ListNode, index: number, deleted: number, added: Entry[]): Entry[] {
        this.#touch(node)
        const removed = replace(node.items, index, deleted, added)
        this.#undo?.push(() => replace(node.items, index, added.length, removed))
        return removed
    }

    #replaceText(node: TextNode, index: number, deleted: number, added: string, blocks: TextNode["blocks"]): void {
        this.#touch(node)
        const { text, blocks: old } = node
        const end = index + deleted
        node.text = text.slice(0, index) + added + text.slice(end)
        if (old.length + blocks.length > 0) {
            for (const block of old) if (block.at >= index && block.at < end) this.#remove(block.node)
            node.blocks = [
                ...old.filter(({ at }) => at < index),
                ...blocks,
                ...old.filter(({ at }) => at >= end).map(({ at, node }) => ({ at: at - deleted + added.length, node })),
            ]
        }
        this.#undo?.push(() => {
            node.text = text
            node.blocks = old
        })
    }

    /** What is shown of this object, and of those above it, no longer holds. */
    #touch(node: Node): void {
        node.changed = true
        let child: Node | undefined
        for (let at: Node | undefined = node; at; at = at.parent) {
            // A text shows nothing of what is in its blocks.
            if (child && at.kind === "text") break
            const { stale, shown } = at
            const touched = at
            at.stale ??= []
            if (child) at.stale.push(child)
            if (stale) break
            this.#undo?.push(() => {
                touched.shown = shown
                touched.stale = undefined
                touched.changed = false
            })
            child = at
        }
    }

    #checkRange(node: ListNode | TextNode, index: Prop, count: number): void {
        const { length } = node.kind === "list" ? node.items : node.text
        const fits = Number.isInteger(index) && Number.isInteger(count) && count >= 0
        if (!fits || (index as number) < 0 || (index as number) + count > length) {
            throw new ViewError(`there are no ${count} elements at ${index} of ${length} in ${node.id}`)
        }
    }

    #misfit(node: Node, what: string, prop?: Prop): ViewError {
        return new ViewError(
            `${what} does not fit the ${node.kind} ${node.id}${prop === undefined ? "" : ` at ${prop}`}`,
        )
    }
}

export function isNode(entry: Entry | undefined): entry is Node {
    return entry instanceof ObjectNode
}

/** What a map has for a key, or a list at an index; the block at an index of a text. */
export function child(node: Node, prop: Prop): Entry | undefined {
    if (node.kind === "map") return node.entries.get(prop as string)
    if (node.kind === "list") return node.items[prop as number]
    return node.blocks.find(({ at }) => at === prop)?.node
}

function inside(node: Node): Iterable<Entry> {
    if (node.kind === "map") return node.entries.values()
    return node.kind === "list" ? node.items : node.blocks.map((block) => block.node)
}

/** How many objects lie in one another, beginning with this one. */
export function depth(node: Node): number {
    let depth = 0
    for (let level = [node]; level.length > 0; depth++) {
        level = level.flatMap((node) => [...inside(node)].filter(isNode))
    }
    return depth
}

/** Makes the data of an object, whose children have theirs. */
function show(node: Node, stale: readonly Node[]): unknown {
    if (node.kind === "text") return node.text
    if (node.kind === "map") return Object.freeze(showMap(node))
    // Most often, one element of a long list changed. (`slice` of a frozen array is slow in V8.)
    if (node.changed || stale.length > 8) {
        const items = Object.freeze(node.items.map(shown))
        noteFixed(items, fixedOf(node))
        return items
    }
    const items = [...(node.shown as readonly unknown[])]
    for (const child of stale) items[node.items.indexOf(child)] = child.shown
    const keys = fixedIn(node.shown as object)
    if (keys) fixed.set(items, keys)
    return Object.freeze(items)
}

/** Which strings are fixed ones, in what was shown: it looks like any other string there. */
const fixed = new WeakMap<object, ReadonlySet<string>>()

export function noteFixed(shown: object, keys: readonly string[]): void {
    if (keys.length > 0) fixed.set(shown, new Set(keys))
}

/** The keys or indexes of fixed strings. */
export function fixedOf(node: MapNode | ListNode): string[] {
    const keys: string[] = []
    const entries: Iterable<[string | number, Entry]> = node.kind === "map" ? node.entries : node.items.entries()
    for (const [key, entry] of entries) if (typeof entry === "string") keys.push(`${key}`)
    return keys
}

/** Which strings are fixed in a part of a document that was shown. */
export function fixedIn(shown: object): ReadonlySet<string> | undefined {
    return fixed.get(shown)
}

function showMap(node: MapNode): Record<string, unknown> {
    const object: Record<string, unknown> = {}
    // In one order everywhere, whoever made them first.
    const same = node.sorted.length === node.entries.size && node.sorted.every((key) => node.entries.has(key))
    if (!same) node.sorted = [...node.entries.keys()].sort()
    for (const key of node.sorted) {
        const entry = node.entries.get(key)!
        // An assignment would set the prototype.
        if (key === "__proto__") Object.defineProperty(object, key, { value: shown(entry), enumerable: true })
        else object[key] = shown(entry)
    }
    noteFixed(object, fixedOf(node))
    return object
}

function shown(entry: Entry): unknown {
    return isNode(entry) ? entry.shown : entry
}

function indexIn(parent: ListNode | TextNode, node: Node): number {
    if (parent.kind === "list") return parent.items.indexOf(node)
    return parent.blocks.find((block) => block.node === node)?.at ?? -1
}

/** Like `items.splice`, which takes only some ten thousands of elements. */
function replace<T>(items: T[], index: number, deleted: number, added: readonly T[]): T[] {
    if (added.length < 10_000) return items.splice(index, deleted, ...added)
    const after = items.splice(index)
    const removed = after.splice(0, deleted)
    for (const item of added) items.push(item)
    for (const item of after) items.push(item)
    return removed
}

/**
 * Tells what an operation on an object at `path` is, without names; of the text that a new object has,
 * as which one.
 *
 * @param length of the object, if it is a text: Automerge 3 may tell of marks that end behind it.
 */
export function describe(
    operation: Operation,
    path: Path,
    tell: (patch: Patch, text?: ObjectId) => void,
    length = Infinity,
): void {
    const at = [...path, operation[2]]
    const tellText = (value: NewValue, path: Prop[]): void => {
        if (isNew(value) && value.text) tell({ action: "splice", path: [...path, 0], value: value.text }, value.id)
    }
    switch (operation[0]) {
        case "put": {
            const [, , , value] = operation
            tell({ action: "put", path: at, value: described(value) })
            return tellText(value, at)
        }
        case "insert": {
            const [, , index, values] = operation
            if (values.length === 0) return
            tell({ action: "insert", path: at, values: values.map(described) })
            return values.forEach((value, i) => tellText(value, [...path, index + i]))
        }
        case "delete":
            return tell(deletion(at, operation[3]))
        case "splice": {
            const [, , , deleted, value] = operation
            if (deleted > 0) tell(deletion(at, deleted))
            if (value) tell({ action: "splice", path: [...at], value })
            return
        }
        case "increment":
            return tell({ action: "inc", path: at, value: operation[3] })
        case "mark": {
            const [, , start, last, name, value] = operation
            const end = Math.min(last, length)
            if (!(start < end)) return
            if (value === null) tell({ action: "unmark", path: [...path], name, start, end })
            else tell({ action: "mark", path: [...path], marks: [{ name, start, end, value }] })
        }
    }
}

function isNew(value: NewValue): value is NewObject {
    return typeof value === "object" && value !== null && "make" in value
}

function described(value: NewValue): PatchValue {
    if (isNew(value)) return { text: "", list: [] as [], map: {} }[value.make]
    return typeof value === "object" && value !== null && "counter" in value ? value.counter : value
}

function deletion(path: Prop[], length: number): Patch {
    return length === 1 ? { action: "del", path } : { action: "del", path, length }
}

/** The object that each patch changed: its path may lead to another one when somebody looks. */
const changed = new WeakMap<Patch, Node>()

/** What was changed in a text. */
export interface TextEdit {
    readonly at: number
    readonly deleted: number
    readonly inserted: string
}

/** What patches did to this text, one after the other; undefined if they did something else to it, too. */
export function editsOf(node: Node, patches: readonly Patch[]): TextEdit[] | undefined {
    const edits: TextEdit[] = []
    for (const patch of patches) {
        if (changed.get(patch) !== node || patch.action === "mark" || patch.action === "unmark") continue
        const at = patch.path[patch.path.length - 1] as number
        if (patch.action === "splice") edits.push({ at, deleted: 0, inserted: patch.value })
        else if (patch.action === "del") edits.push({ at, deleted: patch.length ?? 1, inserted: "" })
        else if (patch.action === "insert") edits.push({ at, deleted: 0, inserted: BLOCK.repeat(patch.values.length) })
        else return undefined
    }
    return edits
}
