import { type Entry, isNode, type Node, type Tree } from "./tree.js"
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
    #held: Entry | undefined
    readonly #path: Path
    readonly #keys: readonly Prop[]

    /** @internal */
    constructor(tree: () => Tree, path: Path) {
        this.#tree = tree
        const fixed = path.findLastIndex((prop) => typeof prop === "number") + 1
        this.#held = fixed === 0 ? tree().root : tree().at(path.slice(0, fixed))
        this.#path = path
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

    /** @internal Why nobody can write here; undefined if there is a text, or nothing, where one may come. */
    get whyNoText(): string | undefined {
        const entry = this.#entry() ?? undefined
        if (entry === undefined || (isNode(entry) && entry.kind === "text")) return undefined
        const at = `at /${this.#path.join("/")}`
        return typeof entry === "string"
            ? `the string ${at} is fixed: it can only be replaced`
            : `there is no text ${at}`
    }

    /** @internal */
    node(): Node | undefined {
        const entry = this.#entry()
        return isNode(entry) ? entry : undefined
    }

    #entry(): Entry | undefined {
        const tree = this.#tree()
        if (!isNode(this.#held)) return this.#held
        // The whole tree may be another one, with the same objects.
        if (!tree.has(this.#held)) this.#held = tree.node(this.#held.id) ?? this.#held
        return tree.has(this.#held) ? tree.at(this.#keys, this.#held) : undefined
    }
}
