/**
 * Random edits through our drafts and through Automerge's own must end in equal documents, on
 * each replica after each change and each merge. `RECONVERGE_SEED=n` repeats one run,
 * `RECONVERGE_RUNS=n` makes more of them; `RECONVERGE_HOST` names a module whose `openHost`
 * executes our operations, in place of Automerge's JavaScript.
 */

import assert from "node:assert/strict"
import { test } from "node:test"
import * as A from "@automerge/automerge"
import { Counter, ImmutableString } from "../js/counter.js"
import { diff } from "../js/diff.js"
import * as draft from "../js/draft.js"
import type { Operation, Prop } from "../js/operations.js"
import { type Entry, type Node, Tree, describe } from "../js/tree.js"
import type { Heads, Patch } from "../js/types.js"
import { openAutomerge } from "./automerge.js"
import type { HostDocument, OpenHost } from "./host.js"
import { type Random, random } from "./random.js"

/** What both libraries have, by the same names. */
type Api = Pick<
    typeof draft,
    "splice" | "updateText" | "mark" | "unmark" | "splitBlock" | "joinBlock" | "updateBlock" | "insertAt" | "deleteAt"
> & {
    Counter: new (value: number) => object
    ImmutableString: new (value: string) => object
}
type Edit = (draft: any, api: Api) => void

const ours: Api = { ...draft, Counter, ImmutableString }
const theirs: Api = {
    ...(A as unknown as Api),
    // Of several smallest differences, Automerge may choose another one, which then merges otherwise.
    updateText(d, path, text) {
        for (const { index, deleted, inserted } of diff(at(d, path) as string, text)) {
            A.splice(d as A.Doc<unknown>, [...path], index, deleted, inserted)
        }
    },
    splice: (d, path, index, deleted, text) => A.splice(d as A.Doc<unknown>, [...path], index, deleted, text),
}

const RUNS = Number(process.env["RECONVERGE_RUNS"] ?? 30)
const REPLICAS = 3
const ROUNDS = 60

test("random edits through drafts and through Automerge end in equal documents", async (t) => {
    const named = process.env["RECONVERGE_HOST"]
    const openHost: OpenHost = named ? (await import(named)).openHost : openAutomerge
    const { seed: first } = random()
    const runs = process.env["RECONVERGE_SEED"] ? 1 : RUNS
    t.diagnostic(`seeds ${first} to ${first + runs - 1}`)
    let edits = 0
    for (let seed = first; seed < first + runs; seed++) {
        try {
            edits += run(random(seed), openHost)
        } catch (error) {
            t.diagnostic(`RECONVERGE_SEED=${seed} repeats this`)
            throw error
        }
    }
    t.diagnostic(`${edits} edits`)
})

/** Returns how many edits there were. */
function run(random: Random, openHost: OpenHost): number {
    unique = 1000
    const replicas = Array.from({ length: REPLICAS }, (_, i) => new Replica(`${i + 1}`.padStart(32, "0"), openHost))
    let edits = 0
    for (let round = 0; round < ROUNDS; round++) {
        const replica = random.pick(replicas)
        if (random.chance(0.3)) {
            replica.merge(random.pick(replicas))
        } else {
            edits += replica.change(random)
        }
    }
    for (let pass = 0; pass < 2; pass++) {
        for (const from of shuffled(replicas, random)) for (const to of shuffled(replicas, random)) to.merge(from)
    }
    const [expected] = replicas
    for (const replica of replicas) {
        assert.deepEqual(replica.tree.view(), expected!.tree.view())
        replica.checkSaved()
        replica.checkDiffs(random)
        replica.close()
    }
    return edits
}

/**
 * A page with its host, and Automerge beside them. What Automerge keeps up to date by patches is
 * not looked at: in 3.5.0 it is wrong for counters in conflict, so that a change may even fail.
 */
class Replica {
    readonly tree = new Tree()
    /** Another page of the same host. */
    readonly #other = new Tree()
    readonly #host: HostDocument
    #reference: A.Doc<any>
    #made = 0
    readonly #states: Heads[] = [[]]

    constructor(
        readonly actor: string,
        openHost: OpenHost,
    ) {
        this.#host = openHost(actor)
        this.#reference = A.init({ actor })
    }

    change(random: Random): number {
        const before = this.tree.view()
        const count = 1 + random.below(6)
        const edits: Edit[] = []
        const patches: Patch[] = []
        const attempt = (d: unknown): void => {
            edits.length = 0
            for (let i = 0; i < count; i++) {
                const edit = randomEdit(this.tree, random)
                edits.push(edit)
                edit(d, ours)
            }
        }
        const nextId = (): string => `~${++this.#made}`
        if (random.chance(0.2)) {
            const failing = (d: unknown): void => {
                attempt(d)
                throw new Error("on purpose")
            }
            assert.throws(() => draft.change(this.tree, failing, nextId, patches), /on purpose/)
            assert.equal(this.tree.view(), before)
        }
        const operations = draft.change(this.tree, attempt, nextId, patches)
        this.#reference = A.load(A.save(this.#reference), { actor: this.actor })
        this.#reference = A.change(this.#reference, { time: 0 }, (d: any) => edits.forEach((edit) => edit(d, theirs)))
        this.#check(before, patches)
        const names = this.#host.change(structuredClone(operations))
        for (const [from, to] of names) this.tree.rename(from, to)
        if (this.#host.told) this.#tellOther(this.#host.told)
        this.#checkSpans()
        this.#noteState()
        return count
    }

    merge(other: Replica): void {
        if (other === this) return
        const before = this.tree.view()
        const patches: Patch[] = []
        const operations = this.#host.merge(other.#host.save())
        for (const operation of operations) assert.ok(this.tree.apply(structuredClone(operation), patches))
        if (this.#host.told) this.#tellOther(operations)
        A.getBackend(this.#reference).applyChanges(A.getAllChanges(other.#reference))
        this.#check(before, patches)
        this.#checkSpans()
        this.#noteState()
    }

    /** What was saved, and what a page that opens it is told, is the same document. */
    checkSaved(): void {
        const opened = new Tree()
        for (const operation of this.#host.read()) assert.ok(opened.apply(operation))
        assert.deepEqual(opened.view(), this.tree.view())
        const loaded = A.load(this.#host.save())
        assert.deepEqual(plain(loaded), plain(A.toJS(this.#reference)))
        A.free(loaded)
    }

    /**
     * What is told to somebody who has no names of objects is what a page that has them finds, and leads
     * from any state to any other, as Automerge shows them.
     */
    checkDiffs({ pick }: Random): void {
        if (!this.#host.diff) return
        const loaded = A.load(this.#host.save())
        for (let i = 0; i < 15; i++) {
            const [before, after] = [pick(this.#states), pick(this.#states)]
            const [state, since, steps] = this.#host.diff(before, after)
            const patches: Patch[] = []
            for (const [path, operations] of steps)
                for (const operation of operations) describe(operation, path, (patch) => patches.push(patch))
            const tree = new Tree()
            for (const operation of state) tree.apply(operation)
            const patched = { root: plain(tree.view()) }
            const found: Patch[] = []
            for (const operation of since) tree.apply(operation, found)
            assert.deepEqual(patches, found)
            for (const patch of patches) applyPatch(patched, patch)
            assert.deepEqual(patched.root, plain(A.toJS(A.view(loaded, [...after]))))
        }
        A.free(loaded)
    }

    #noteState(): void {
        if (this.#host.heads) this.#states.push(this.#host.heads())
    }

    close(): void {
        this.#host.close()
        A.free(this.#reference)
    }

    #tellOther(operations: Operation[]): void {
        for (const operation of operations) assert.ok(this.#other.apply(structuredClone(operation)))
        assert.deepEqual(this.#other.view(), this.tree.view())
    }

    /** Texts with their marks and blocks are what Automerge tells of them. */
    #checkSpans(): void {
        const host = this.#host
        if (!host.spans) return
        for (const node of nodes(this.tree.root)) {
            if (node.kind !== "text") continue
            const spans = host.spans(node.id)
            assert.deepEqual(spans, plain(A.spans(this.#reference, this.tree.path(node))))
            assert.deepEqual(host.spans(node.id, host.heads!()), spans)
            assert.equal(spans.map((span) => (span.type === "text" ? span.value : "\uFFFC")).join(""), node.text)
        }
    }

    #check(before: unknown, patches: Patch[]): void {
        const after = plain(this.tree.view())
        assert.deepEqual(contents(this.tree.root), after)
        assert.deepEqual(after, plain(A.toJS(this.#reference)))
        const patched = { root: plain(before) }
        for (const patch of patches) applyPatch(patched, patch)
        assert.deepEqual(patched.root, after)
    }
}

// Without the empty one, which Automerge's functions on texts do not find.
const KEYS = ["a", "b", "c", "d", "0", "é"]
const PIECES = ["x", "yz", " ", "\n", "😀", "e\u0301", "本", "word "]
let unique = 1000

/** An edit that fits what the tree shows now. It changes something, always. */
function randomEdit(tree: Tree, random: Random): Edit {
    const { below, chance, pick } = random
    // Blocks are edited as a whole only: Automerge's drafts do not reach into them.
    const places = [...nodes(tree.root)]
    // Marks and blocks meet in texts that are edited often.
    const texts = places.filter(({ kind }) => kind === "text")
    const node = pick(texts.length > 0 && chance(0.3) ? texts : places)
    const path = tree.path(node)
    const counters = children(node).filter(([, entry]) => entry instanceof Counter)
    if (counters.length > 0 && chance(0.5)) {
        const [prop] = pick(counters)
        const by = 1 + below(9)
        return chance(0.5) ? (d) => at(d, [...path, prop]).increment(by) : (d) => at(d, [...path, prop]).decrement(by)
    }
    switch (node.kind) {
        case "map": {
            const key = pick(KEYS)
            if (node.entries.has(key) && chance(0.3)) return (d) => void delete at(d, path)[key]
            const value = randomValue(random, 0)
            return (d, api) => assign(at(d, path), key, value(api))
        }
        case "list":
            return randomListEdit(path, node.items, random)
        case "text":
            return randomTextEdit(
                path,
                node.text,
                node.blocks.map((block) => block.at),
                random,
            )
    }
}

function randomListEdit(path: Prop[], items: readonly Entry[], random: Random): Edit {
    const { below, pick } = random
    const { length } = items
    const ofKind = typeof items[0] === "string" ? fixed : same
    const values = Array.from({ length: 1 + below(3) }, () => ofKind(randomValue(random, 0)))
    const index = below(length + 1)
    const count = below(length - index + 1)
    const grow: Edit[] = [
        (d, api) => at(d, path).push(...values.map((value) => value(api))),
        (d, api) => at(d, path).unshift(...values.map((value) => value(api))),
        (d, api) => at(d, path).insertAt(index, ...values.map((value) => value(api))),
        (d, api) => api.insertAt(at(d, path), index, ...values.map((value) => value(api))),
        (d, api) => at(d, path).splice(index, count, ...values.map((value) => value(api))),
        (d, api) => assign(at(d, path), index, values[0]!(api)),
    ]
    const shrink: Edit[] = [
        (d) => at(d, path).pop(),
        (d) => at(d, path).shift(),
        (d) => at(d, path).deleteAt(index % length),
        (d, api) => api.deleteAt(at(d, path), index % length, 1),
        (d) => at(d, path).splice(index, count),
    ]
    return pick(length > 0 ? [...grow, ...shrink] : grow)
}

function randomTextEdit(path: Prop[], text: string, blocks: number[], random: Random): Edit {
    const { below, chance, pick } = random
    // Between characters of more than one code unit, Automerge knows no place.
    const place = (): number => {
        const index = below(text.length + 1)
        return (text.codePointAt(index - 1) ?? 0) > 0xffff ? index + 1 : index
    }
    const [start, end] = [place(), place()].sort((a, b) => a - b) as [number, number]
    const inserted = randomText(random)
    if (chance(0.4)) return (d, api) => api.splice(d, path, start, end - start < 6 ? end - start : 0, inserted)
    if (chance(0.3)) {
        const changed = text.slice(0, start) + inserted + text.slice(end).replace("x", "😀")
        return (d, api) => api.updateText(d, path, changed)
    }
    const more = randomValue(random, 2)
    const fields = { type: pick(["p", "h1"]), level: below(3), parents: ["list"] }
    const block = (api: Api): object => ({ ...fields, more: more(api) })
    if (blocks.length > 0 && chance(0.4)) {
        const index = pick(blocks)
        if (chance(0.5)) return (d, api) => api.joinBlock(d, path, index)
        return (d, api) => api.updateBlock(d, path, index, block(api))
    }
    if (chance(0.3)) return (d, api) => api.splitBlock(d, path, start, block(api))
    if (start < end) {
        const range = { start, end, expand: pick(["none", "before", "after", "both"] as const) }
        const name = pick(["bold", "link"])
        if (chance(0.3)) return (d, api) => api.unmark(d, path, range, name)
        return (d, api) => api.mark(d, path, range, name, name === "bold" ? true : "https://example.com")
    }
    return (d, api) => api.splice(d, path, start, 0, inserted)
}

function randomText({ below, pick }: Random): string {
    return Array.from({ length: 1 + below(4) }, () => pick(PIECES)).join("")
}

/** Never what is there already: that is no edit here, while Automerge may end a conflict by it. */
function randomValue(random: Random, depth: number): (api: Api) => unknown {
    const { below, pick } = random
    const number = ++unique
    const text = randomText(random)
    const kinds: (() => (api: Api) => unknown)[] = [
        () => () => number,
        () => () => -number / 4,
        () => () => BigInt(number) * 2n ** 45n,
        () => () => text,
        () => () => `text ${number}`,
        () => () => new Date(number * 1000),
        () => () => new Uint8Array([number & 255, number >> 8]),
        () => (api) => new api.Counter(number),
        () => (api) => new api.ImmutableString(`fixed ${number}`),
    ]
    if (depth < 3) {
        const inner = Array.from({ length: below(4) }, () => [pick(KEYS), randomValue(random, depth + 1)] as const)
        kinds.push(
            () => (api) => Object.fromEntries(inner.map(([key, value]) => [key, value(api)])),
            () => (api) => inner.map(([, value]) => value(api)),
            // Within a new object, nothing is there yet.
            () => (api) => [null, true, false, "", ...inner.map(([, value]) => value(api))],
        )
    }
    return pick(kinds)()
}

/** Among fixed strings, ours makes a string a fixed one, which has no operations for its characters. */
function fixed(value: (api: Api) => unknown): (api: Api) => unknown {
    return (api) => {
        const given = value(api)
        return typeof given === "string" ? new api.ImmutableString(given) : given
    }
}

const same = <V>(value: V): V => value

function* nodes(node: Node): Generator<Node> {
    yield node
    if (node.kind !== "text") for (const [, entry] of children(node)) if (isNode(entry)) yield* nodes(entry)
}

function children(node: Node): [Prop, Entry][] {
    if (node.kind === "map") return [...node.entries]
    return node.kind === "list" ? [...node.items.entries()] : []
}

function isNode(entry: Entry): entry is Node {
    return typeof entry === "object" && entry !== null && "kind" in entry
}

function at(draft: any, path: readonly Prop[]): any {
    return path.reduce((value, prop) => value[prop], draft)
}

/**
 * Ours edits a list that another is assigned to, fills an empty map, and keeps a fixed string one.
 * Where nothing like that is there any more, both do the same.
 */
function assign(holder: any, prop: Prop, value: unknown): void {
    const isOne = (value: unknown): boolean =>
        typeof value === "string" || (typeof value === "object" && value !== null)
    if (isOne(holder[prop]) && isOne(value)) holder[prop] = null
    holder[prop] = value
}

/** As `view`, but without what it remembers. */
function contents(entry: Entry): unknown {
    if (!isNode(entry)) return plain(entry)
    if (entry.kind === "text") return entry.text
    const inner = children(entry).map(([prop, inner]) => [prop, contents(inner)] as const)
    return entry.kind === "list" ? inner.map(([, value]) => value) : Object.fromEntries(inner)
}

/** Without the libraries' own classes. */
function plain(value: unknown): unknown {
    if (typeof value !== "object" || value === null || value instanceof Date || value instanceof Uint8Array)
        return value
    if (A.isCounter(value)) return value.value
    if (A.isImmutableString(value)) return value.toString()
    if (Array.isArray(value)) return value.map(plain)
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner)]))
}

/** What an application does that keeps a copy of its own by patches. */
function applyPatch(document: { root: unknown }, patch: Patch): void {
    const path: Prop[] = ["root", ...patch.path]
    if (patch.action === "mark" || patch.action === "unmark") return
    const prop = path.pop()!
    let holder: any = document
    let key: Prop = "root"
    for (const next of path) {
        // In a block, which a string does not show.
        if (typeof holder[key] === "string") return
        if (next !== "root" || holder !== document) [holder, key] = [holder[key], next]
    }
    const target = holder[key]
    const replace = (index: number, deleted: number, added: string): void => {
        holder[key] = target.slice(0, index) + added + target.slice(index + deleted)
    }
    if (typeof target === "string") {
        if (patch.action === "splice") replace(prop as number, 0, patch.value)
        else if (patch.action === "del") replace(prop as number, patch.length ?? 1, "")
        else if (patch.action === "insert") replace(prop as number, 0, "\uFFFC".repeat(patch.values.length))
        return
    }
    switch (patch.action) {
        case "put":
            target[prop] = structuredClone(patch.value)
            break
        case "inc":
            target[prop] += patch.value
            break
        case "insert":
            target.splice(prop, 0, ...structuredClone(patch.values))
            break
        case "del":
            if (Array.isArray(target)) target.splice(prop as number, patch.length ?? 1)
            else delete target[prop]
            break
        case "splice":
            throw new Error("a splice of what is no text")
    }
}

function shuffled<T>(items: readonly T[], { below }: Random): T[] {
    const shuffled = [...items]
    for (let i = shuffled.length - 1; i > 0; i--) {
        const j = below(i + 1)
        ;[shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!]
    }
    return shuffled
}
