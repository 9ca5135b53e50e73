// Edits of a page, and what others changed meanwhile: each in the form that it has after the other.
//
// A page edited what it shows, and the document had changed since. Shifted, the edit can be made on
// the changed document, and the changes on the edited page, and both come to the same contents. It
// is as if the page had seen the changes first, but no side undoes what it has not seen: what one
// inserts where the other removes stays, and so does a value that is set while the other removes
// it, as when Automerge merges them. Of two values for one place, the page's stays.

import type { Operation } from "../operations.js"

type Pair = [own: Operation[], other: Operation[]]
type Mark = Extract<Operation, ["mark", ...unknown[]]>

/** @param real the name by which `others` know an object. */
export function shift(edit: readonly Operation[], others: readonly Operation[], real: (name: string) => string): Pair {
    let left = others.flatMap(parts)
    const touched = new Set(left.map(([, object]) => object))
    const shifted = edit.flatMap((operation) => {
        // What is not shifted is made as one.
        if (!touched.has(real(operation[1]))) return [operation]
        let own: Operation[]
        ;[own, left] = all(parts(operation), left, real)
        return own
    })
    return [shifted, left]
}

/** Where an index of a list or text is after these operations or, if `back`, was before them. */
export function place(index: number, object: string, operations: readonly Operation[], back = false): number {
    const spans = operations.flatMap(parts).flatMap((operation) => (operation[1] === object && spanOf(operation)) || [])
    if (!back) return spans.reduce(moved, index)
    return spans.reduceRight((now, { at, gone, come }) => moved(now, { at, gone: come, come: gone }), index)
}

/** Elements that are removed, or inserted. */
interface Span {
    readonly at: number
    readonly gone: number
    readonly come: number
}

function spanOf(operation: Operation): Span | undefined {
    const [name, , at] = operation
    if (typeof at !== "number") return undefined
    if (name === "splice") return { at, gone: operation[3], come: operation[4].length }
    if (name === "insert") return { at, gone: 0, come: operation[3].length }
    return name === "delete" ? { at, gone: operation[3], come: 0 } : undefined
}

/** So that no operation both removes and inserts. */
function parts(operation: Operation): Operation[] {
    if (operation[0] !== "splice") return [operation]
    const [name, object, at, gone, text] = operation
    return [...removal(operation, at, gone), ...(text ? [[name, object, at, 0, text] satisfies Operation] : [])]
}

/** Removes so many elements from `at` on, if any, by the kind of operation that fits this one's object. */
function removal([name, object]: Operation, at: number, gone: number): Operation[] {
    if (gone === 0) return []
    return [name === "splice" ? [name, object, at, gone, ""] : ["delete", object, at, gone]]
}

function moved(index: number, { at, gone, come }: Span): number {
    return index < at ? index : Math.max(index - gone, at) + come
}

function placed(operation: Operation, at: number): Operation {
    return operation.with(2, at) as Operation
}

function all(own: Operation[], others: Operation[], real: (name: string) => string): Pair {
    const made = own.flatMap((operation) => {
        let moving = [operation]
        others = others.flatMap((other) => {
            const [after, left] = moving.length === 1 ? pair(moving[0]!, other, real) : all(moving, [other], real)
            moving = after
            return left
        })
        return moving
    })
    return [made, others]
}

function pair(own: Operation, other: Operation, real: (name: string) => string): Pair {
    if (real(own[1]) !== other[1]) return [[own], [other]]
    const [a, b] = [spanOf(own), spanOf(other)]
    if (a && b) return spans(own, a, other, b)
    if (b) return beside(own, 0, other, b)
    if (a) return beside(other, 0, own, a).reverse() as Pair
    if (own[0] === "mark" && other[0] === "mark") return marks(own, other)
    if (own[2] !== other[2] || (own[0] === "increment" && other[0] === "increment")) return [[own], [other]]
    if (own[0] === "increment" && other[0] === "put") {
        const [name, object, prop, value] = other
        // It may be what others added.
        if (typeof value === "object" && value && "counter" in value) {
            return [[own], [[name, object, prop, { counter: value.counter + own[3] }]]]
        }
    }
    const yields = own[0] === "increment" || (own[0] === "delete" && other[0] !== "increment")
    return yields ? [[], [other]] : [[own], []]
}

function spans(own: Operation, a: Span, other: Operation, b: Span): Pair {
    if (a.come && b.come) {
        // In one place, the page's own comes first: it stays with what it was typed behind.
        return a.at <= b.at ? [[own], [placed(other, b.at + a.come)]] : [[placed(own, a.at + b.come)], [other]]
    }
    if (a.come) return beside(own, a.come, other, b)
    if (b.come) return beside(other, b.come, own, a).reverse() as Pair
    const both = Math.max(0, Math.min(a.at + a.gone, b.at + b.gone) - Math.max(a.at, b.at))
    return [removal(own, moved(a.at, b), a.gone - both), removal(other, moved(b.at, a), b.gone - both)]
}

/** What inserts so many elements, or is about one or a range, and what removes or else inserts some. */
function beside(one: Operation, come: number, other: Operation, span: Span): Pair {
    if (one[0] === "mark") {
        const [, , start, end] = one
        return [ranged(one, moved(start, span), end > span.at ? moved(end, span) : end), [other]]
    }
    const at = one[2] as number
    const within = at - span.at
    if (within < 0 || (within === 0 && come > 0)) return [[one], [placed(other, span.at + come)]]
    if (within >= span.gone) return [[placed(one, moved(at, span))], [other]]
    if (one[0] === "increment") return [[], [other]]
    const survives: Operation = one[0] === "put" ? ["insert", one[1], span.at, [one[3]]] : placed(one, span.at)
    const before = removal(other, span.at, within)
    const after = removal(other, span.at + (come || 1), span.gone - within - (come ? 0 : 1))
    return [[survives], [...before, ...after]]
}

/** A page shows no marks, but tells of them: of those of others, what its own leave. */
function marks(own: Mark, other: Mark): Pair {
    const [, , start, end, name] = other
    if (own[4] !== name) return [[own], [other]]
    return [[own], [...ranged(other, start, Math.min(end, own[2])), ...ranged(other, Math.max(start, own[3]), end)]]
}

function ranged(mark: Mark, start: number, end: number): Operation[] {
    return start < end ? [mark.with(2, start).with(3, end) as Mark] : []
}
