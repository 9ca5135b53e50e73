import assert from "node:assert/strict"
import { change, type Draft } from "../js/draft.js"
import type { Operation } from "../js/operations.js"
import { Tree } from "../js/tree.js"
import type { Patch } from "../js/types.js"

/** A document without a host: another tree gets the operations, and must show the same. */
export class Page<T extends object = Record<string, any>> {
    readonly tree = new Tree()
    readonly other = new Tree()
    patches: Patch[] = []
    #made = 0

    constructor(initial: object = {}) {
        this.change((draft) => void Object.assign(draft, initial))
    }

    get doc(): T {
        return this.tree.view() as T
    }

    change(fn: (draft: Draft<T>) => unknown): Operation[] {
        this.patches = []
        const operations = change<T>(this.tree, fn, () => `~${++this.#made}`, this.patches)
        for (const operation of operations) assert.ok(this.other.apply(structuredClone(operation)))
        assert.deepEqual(this.other.view(), this.tree.view())
        return operations
    }

    /** The change must throw this, and do nothing. */
    refuses(fn: (draft: Draft<T>) => unknown, expected: RegExp): void {
        const before = this.doc
        assert.throws(() => this.change(fn), expected)
        assert.equal(this.doc, before)
        assert.deepEqual(this.patches, [])
        assert.deepEqual(this.other.view(), before)
    }
}
