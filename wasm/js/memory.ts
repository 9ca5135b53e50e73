// Storage that ends with the page or the process.

import { StorageError } from "./storage.js"
import type { Chunk, Storage, StorageKey, StorageWrite } from "./storage.js"

interface Node {
    data?: Uint8Array | undefined
    readonly children: Map<string, Node>
}

const node = (): Node => ({ children: new Map() })

/** Keeps chunks in memory: atomic and ordered as {@link Storage} says, durable in no way. */
export class MemoryStorage implements Storage {
    #root = node()
    #closed = false

    async load(key: StorageKey): Promise<Uint8Array | undefined> {
        this.#check()
        return this.#find(key)?.data?.slice()
    }

    save(key: StorageKey, data: Uint8Array): Promise<void> {
        return this.commit([{ put: key, data }])
    }

    remove(key: StorageKey): Promise<void> {
        return this.commit([{ remove: key }])
    }

    async loadRange(prefix: StorageKey): Promise<Chunk[]> {
        this.#check()
        const found = [...chunks(this.#find(prefix), prefix)]
        return found.map(({ key, data }) => ({ key, data: data.slice() }))
    }

    removeRange(prefix: StorageKey): Promise<void> {
        return this.commit([{ removeRange: prefix }])
    }

    async keys(prefix: StorageKey): Promise<StorageKey[]> {
        this.#check()
        return [...chunks(this.#find(prefix), prefix)].map(({ key }) => key)
    }

    async commit(writes: StorageWrite[]): Promise<void> {
        this.#check()
        // What is malformed throws here, before the first write.
        const steps = writes.map((write) => {
            if ("put" in write) return { path: [...write.put], data: write.data.slice() }
            if ("remove" in write) return { path: [...write.remove] }
            return { path: [...write.removeRange], range: write }
        })
        for (const { path, data, range } of steps) {
            if (data) {
                let at = this.#root
                for (const part of path) {
                    let next = at.children.get(part)
                    if (!next) at.children.set(part, (next = node()))
                    at = next
                }
                at.data = data
            } else {
                prune(this.#root, path, 0, (at) => {
                    const { from, below } = range ?? {}
                    if (from === undefined && below === undefined) at.data = undefined
                    if (!range) return
                    for (const part of at.children.keys()) {
                        const within = part >= (from ?? "") && (below === undefined || part < below)
                        if (within) at.children.delete(part)
                    }
                })
            }
        }
    }

    close(): void {
        this.#closed = true
    }

    #check(): void {
        if (this.#closed) throw new StorageError("closed", "the storage was closed")
    }

    #find(key: StorageKey): Node | undefined {
        let at: Node | undefined = this.#root
        for (const part of key) at = at?.children.get(part)
        return at
    }
}

/** Carries `change` out on the node at `path`, and takes away the nodes that this empties. */
function prune(at: Node, path: string[], depth: number, change: (at: Node) => void): void {
    const part = path[depth]
    if (part === undefined) {
        change(at)
        return
    }
    const next = at.children.get(part)
    if (!next) return
    prune(next, path, depth + 1, change)
    if (!next.data && next.children.size === 0) at.children.delete(part)
}

function* chunks(at: Node | undefined, key: StorageKey): Generator<Chunk> {
    if (!at) return
    if (at.data) yield { key: [...key], data: at.data }
    for (const part of [...at.children.keys()].sort()) {
        yield* chunks(at.children.get(part), [...key, part])
    }
}
