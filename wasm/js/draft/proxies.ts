// The drafts themselves: proxies for maps and lists, and counters.

import { Counter } from "../counter.js"
import { child, type ListNode, type MapNode } from "../tree.js"
import type { Prop } from "../types.js"
import { CONTEXT, contextIn, COUNTER, Source } from "./context.js"
import type { DraftMakers, Edit } from "./edit.js"
import { checkIndex, checkKey, pointer } from "./faults.js"
import { listMethods } from "./lists.js"
import { wellFormed } from "./values.js"

export const makers: DraftMakers = {
    map: (edit, node) => new Proxy({}, new MapHandler(edit, node)),
    list: (edit, node) => new Proxy<unknown[]>([], new ListHandler(edit, node)),
    counter: (...args) => new DraftCounter(...args),
}

class DraftCounter extends Counter {
    #edit: Edit
    #node: MapNode | ListNode
    #key: string
    #counter: Counter

    constructor(edit: Edit, node: MapNode | ListNode, key: string, counter: Counter) {
        super(counter.value)
        this.#edit = edit
        this.#node = node
        this.#key = key
        this.#counter = counter
    }

    /** What it stands for. */
    get [COUNTER](): Counter {
        return this.#counter
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
        return Reflect.get(this.edit.tree.has(this.node) && Object.hasOwn(listMethods, key) ? listMethods : target, key)
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
        return Object.hasOwn(listMethods, key) || Reflect.has(target, key)
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

/** The index that a property names, if it is one. */
function indexOf(key: string | symbol): number | undefined {
    return typeof key === "string" && /^(0|[1-9]\d*)$/.test(key) ? Number(key) : undefined
}
