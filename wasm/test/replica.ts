import { change } from "../js/draft.js"
import { Tree } from "../js/tree.js"
import { openAutomerge } from "./automerge.js"

/** A page, and Automerge as its host. */
export class Replica {
    readonly tree = new Tree()
    readonly host
    #made = 0

    constructor(actor: number) {
        this.host = openAutomerge(`${actor}`.padStart(32, "0"))
    }

    get doc(): any {
        return this.tree.view()
    }

    change(fn: (draft: any) => void): void {
        const operations = change(this.tree, fn, () => `~${++this.#made}`)
        for (const [made, real] of this.host.change(operations)) this.tree.rename(made, real)
    }

    merge(other: Replica): void {
        for (const operation of this.host.merge(other.host.save())) this.tree.apply(operation)
    }
}
