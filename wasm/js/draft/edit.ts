// One run of `change`: what is done to the drafts that it hands out is applied to the tree, and noted.

import { Counter, isCounter, isImmutableString } from "../counter.js"
import { isBytes, isDate, isPlain, isStorable } from "../kinds.js"
import type { NewValue, ObjectId, Operation } from "../operations.js"
import { child, type Entry, fixedIn, isNode, ListNode, MapNode, type Node, type TextNode, type Tree } from "../tree.js"
import type { Patch, Prop } from "../types.js"
import { type Context, contextIn, nodeIn, type Run, sourcesOf } from "./context.js"
import { checkKey, type PathOf, pointer, refusal } from "./faults.js"
import { ascending, count, isLike, origins, resembles } from "./matching.js"
import { fix, isFixed, isObject, isSameValue, ofKind, same, sizeOf, wellFormed } from "./values.js"
import { WEIGHT_MAX, weightOf } from "./weight.js"

/** What makes drafts. */
export interface DraftMakers {
    map(edit: Edit, node: MapNode): object
    list(edit: Edit, node: ListNode): object
    /** Of a counter that is at `key` of a map, or in a list. */
    counter(edit: Edit, node: MapNode | ListNode, key: string, counter: Counter): Counter
}

/** One run of `change`. */
export class Edit implements Run {
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
        readonly makers: DraftMakers,
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
            draft = node.kind === "list" ? this.makers.list(this, node) : this.makers.map(this, node)
            this.#drafts.set(node, draft)
        }
        return draft
    }

    /** What a draft shows. */
    show(entry: Entry | undefined, node: MapNode | ListNode, key: string): unknown {
        if (isNode(entry)) return entry.kind === "text" ? entry.text : this.draft(entry)
        if (entry instanceof Counter) {
            return this.#drafts.get(entry) ?? this.keep(entry, this.makers.counter(this, node, key, entry))
        }
        // The view has these very objects.
        if (isDate(entry)) return this.lend(new Date(entry), entry)
        if (isBytes(entry)) return this.lend(entry.slice(), entry)
        return entry
    }

    keep(counter: Counter, draft: Counter): Counter {
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

    insertBlock(node: TextNode, index: number, block: object, at: PathOf, replaced = 0): void {
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
    read(value: unknown, at: PathOf, later: Operation[], within: readonly object[] = []): NewValue {
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

    #readObject(value: object, at: PathOf, later: Operation[], within: readonly object[]): NewValue {
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
    #readParts(value: object, at: PathOf, later: Operation[], inside: readonly object[], loose?: Context): NewValue {
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
    #copyOf({ edit, node }: Context, at: PathOf, later: Operation[], within: readonly object[]): NewValue {
        edit.checkOpen()
        const drafts = (edit as Edit).#drafts
        let isMoving = false
        for (let at: Node | undefined = node; at; at = at.parent) isMoving ||= this.#moving.has(at)
        const copy = (entry: Entry): NewValue => {
            if (entry instanceof Counter) return { counter: entry.value }
            if (!isNode(entry)) return isDate(entry) ? new Date(entry) : isBytes(entry) ? entry.slice() : entry
            const draft = drafts.get(entry)
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
