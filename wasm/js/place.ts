import { isNode, type Node, type Tree } from "./tree.js"
import type { Path, Prop } from "./types.js"

/**
 * A place in a document that stays with what is there, whatever others insert or delete before it.
 *
 * Keys name what they name, so they are followed anew each time. An index is looked up once: the
 * element that was there then is the one that is meant, wherever it is by now. When that was
 * deleted, the place leads nowhere.
 */
export class Place {
    readonly #tree: () => Tree
    /** What the last index led to, or the root. */
    #held: Node | undefined
    readonly #keys: readonly Prop[]

    /** @internal */
    constructor(tree: () => Tree, path: Path) {
        this.#tree = tree
        const fixed = path.findLastIndex((prop) => typeof prop === "number") + 1
        const held = fixed === 0 ? tree().root : tree().at(path.slice(0, fixed))
        this.#held = isNode(held) ? held : undefined
        this.#keys = path.slice(fixed)
    }

    /** Whether something is there that is an object: a map, a list or a text. */
    get isThere(): boolean {
        return this.node() !== undefined
    }

    /** Where it is now; undefined when it is gone. */
    get path(): Prop[] | undefined {
        const node = this.node()
        return node && this.#tree().path(node)
    }

    /** What is there now, as `doc()` shows it; undefined when it is gone. */
    get value(): unknown {
        const node = this.node()
        return node && this.#tree().view(node)
    }

    /** What is there now, if it is a text. */
    get text(): string | undefined {
        const node = this.node()
        return node?.kind === "text" ? node.text : undefined
    }

    /** @internal What it is called in the document, by everybody; undefined while that is not stored yet. */
    get name(): string | undefined {
        const id = this.node()?.id
        return id?.startsWith("~") ? undefined : id
    }

    /** @internal */
    node(): Node | undefined {
        const tree = this.#tree()
        // The whole tree may be another one, with the same objects.
        if (this.#held && !tree.has(this.#held)) this.#held = tree.node(this.#held.id) ?? this.#held
        if (!this.#held || !tree.has(this.#held)) return undefined
        const entry = tree.at(this.#keys, this.#held)
        return isNode(entry) ? entry : undefined
    }
}
