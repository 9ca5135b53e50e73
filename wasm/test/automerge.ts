/** A host made of Automerge's own JavaScript package. */

import * as A from "@automerge/automerge"
import type { NewObject, NewValue, ObjectId, Operation } from "../js/operations.js"
import { type Node, Tree } from "../js/tree.js"
import type { HostDocument } from "./host.js"

type Backend = ReturnType<typeof A.getBackend>

export function openAutomerge(actor: string): HostDocument {
    return new AutomergeDocument(actor)
}

class AutomergeDocument implements HostDocument {
    readonly #doc: A.Doc<unknown>
    readonly #backend: Backend
    /** What the page sees, to tell which object a path leads to when a patch applies. */
    readonly #seen = new Tree()
    #made = 0

    constructor(actor: string) {
        this.#doc = A.init({ actor })
        this.#backend = A.getBackend(this.#doc)
    }

    change(operations: readonly Operation[]): Map<ObjectId, ObjectId> {
        const names = new Map<ObjectId, ObjectId>()
        for (const operation of operations) this.#execute(operation, names)
        this.#backend.commit(undefined, 0)
        for (const operation of operations) this.#seen.apply(structuredClone(operation))
        for (const [temporary, real] of names) this.#seen.rename(temporary, real)
        return names
    }

    merge(bytes: Uint8Array): Operation[] {
        const before = this.#backend.getHeads()
        const other = A.load(bytes)
        this.#backend.applyChanges(A.getAllChanges(other))
        A.free(other)
        const after = this.#backend.getHeads()
        return this.#translate(this.#backend.diff(before, after), this.#seen)
    }

    read(): Operation[] {
        return this.#translate(this.#backend.diff([], this.#backend.getHeads()), new Tree())
    }

    save(): Uint8Array {
        return this.#backend.save()
    }

    close(): void {
        A.free(this.#doc)
    }

    #execute(operation: Operation, names: Map<ObjectId, ObjectId>): void {
        const backend = this.#backend
        const id = names.get(operation[1]) ?? operation[1]
        switch (operation[0]) {
            case "put": {
                const [, , prop, value] = operation
                if (isNewObject(value)) names.set(value.id, backend.putObject(id, prop, empty(value)))
                else backend.put(id, prop, ...typed(value))
                break
            }
            case "insert":
                operation[3].forEach((value, i) => {
                    const index = operation[2] + i
                    if (isNewObject(value)) names.set(value.id, backend.insertObject(id, index, empty(value)))
                    else backend.insert(id, index, ...typed(value))
                })
                break
            case "delete":
                if (typeof operation[2] === "string") backend.delete(id, operation[2])
                else backend.splice(id, operation[2], operation[3])
                break
            case "splice":
                backend.splice(id, operation[2], operation[3], operation[4])
                break
            case "increment":
                backend.increment(id, operation[2], operation[3])
                break
            case "mark": {
                const [, , start, end, name, value, expand] = operation
                if (value === null) backend.unmark(id, { start, end, expand }, name)
                else backend.mark(id, { start, end, expand }, name, ...typed(value))
            }
        }
    }

    /** Patches with paths as operations, applied to the tree on the way. */
    #translate(patches: A.Patch[], tree: Tree): Operation[] {
        const operations: Operation[] = []
        const apply = (operation: Operation): void => {
            operations.push(structuredClone(operation))
            if (!tree.apply(operation)) throw new Error(`no object ${operation[1]}`)
        }
        for (const patch of patches) for (const operation of this.#operations(patch, tree)) apply(operation)
        for (const [made, real] of this.#realNames(tree.root, tree)) {
            rename(operations, made, real)
            tree.rename(made, real)
        }
        return operations
    }

    #operations(patch: A.Patch, tree: Tree): Operation[] {
        const object = (path: Prop[]): ObjectId => (tree.at(path) as Node).id
        const last = patch.path[patch.path.length - 1]!
        const parent = patch.path.slice(0, -1)
        switch (patch.action) {
            case "put":
                return [["put", object(parent), last, this.#value(patch.value)]]
            case "insert":
                return [["insert", object(parent), last as number, patch.values.map((value) => this.#value(value))]]
            case "splice":
                return [["splice", object(parent), last as number, 0, patch.value]]
            case "del": {
                const node = tree.at(parent) as Node
                if (node.kind === "text") return [["splice", node.id, last as number, patch.length ?? 1, ""]]
                return [["delete", node.id, last, patch.length ?? 1]]
            }
            case "inc":
                return [["increment", object(parent), last, patch.value]]
            case "mark":
                return patch.marks.map(({ name, start, end, value }) => [
                    "mark",
                    object(patch.path),
                    start,
                    end,
                    name,
                    value as Scalar,
                    "none",
                ])
            case "unmark":
                return [["mark", object(patch.path), patch.start, patch.end, patch.name, null, "none"]]
            case "conflict":
                return []
        }
    }

    #value(value: unknown): NewValue {
        if (typeof value === "string") return { make: "text", id: `made:${++this.#made}`, text: value }
        if (typeof value !== "object" || value === null || value instanceof Date || value instanceof Uint8Array)
            return value as Scalar
        if (A.isCounter(value)) return { counter: value.value }
        if (A.isImmutableString(value)) return value.toString()
        return { make: Array.isArray(value) ? "list" : "map", id: `made:${++this.#made}` }
    }

    /** Patches do not name objects; the document does. */
    *#realNames(node: Node, tree: Tree): Generator<[made: ObjectId, real: ObjectId]> {
        const children: [Prop, unknown][] =
            node.kind === "map"
                ? [...node.entries]
                : node.kind === "list"
                  ? [...node.items.entries()]
                  : node.blocks.map((block) => [block.at, block.node])
        for (const [prop, entry] of children) {
            if (typeof entry !== "object" || entry === null || !("kind" in entry)) continue
            const inner = entry as Node
            const real = this.#backend.getWithType(node.id, prop)?.[1] as ObjectId
            if (inner.id !== real) yield [inner.id, real]
            yield* this.#realNames(inner, tree)
        }
    }
}

function isNewObject(value: NewValue): value is NewObject {
    return typeof value === "object" && value !== null && "make" in value
}

function empty(value: NewObject): {} | [] | string {
    return value.make === "text" ? (value.text ?? "") : value.make === "list" ? [] : {}
}

function typed(value: Exclude<NewValue, NewObject>): [any, Parameters<Backend["put"]>[3]] {
    if (value === null) return [null, "null"]
    if (typeof value === "string") return [value, "str"]
    if (typeof value === "boolean") return [value, "boolean"]
    if (typeof value === "bigint") return [value, "int"]
    if (typeof value === "number") return [value, Number.isSafeInteger(value) ? "int" : "f64"]
    if (value instanceof Date) return [value.getTime(), "timestamp"]
    if (value instanceof Uint8Array) return [value, "bytes"]
    return [value.counter, "counter"]
}

function rename(operations: Operation[], from: ObjectId, to: ObjectId): void {
    for (const operation of operations) {
        if (operation[1] === from) operation[1] = to
        const values = operation[0] === "put" ? [operation[3]] : operation[0] === "insert" ? operation[3] : []
        for (const value of values) if (isNewObject(value) && value.id === from) value.id = to
    }
}
