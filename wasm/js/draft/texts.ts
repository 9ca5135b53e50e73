// What can be done to a text of a draft.

import { diff, snap } from "../diff.js"
import type { DraftPath, Expand, Path, Scalar } from "../types.js"
import { blockAt, textAt } from "./access.js"
import { checkIndex, describe, pointer } from "./faults.js"
import { wellFormed } from "./values.js"

/** A range of a text, in UTF-16 code units, without `end`. */
export interface MarkRange {
    /** From this code unit on, */
    start: number
    /** up to but without this one. */
    end: number
    /** What the mark's ends do when text is inserted there; by default, `after`: it grows at its end. */
    expand?: Expand
}

/**
 * Edits a text, so that it merges with what others type there. Replaces `deleted` UTF-16 code units
 * from `index` on by `text`. An index within a pair of surrogates means its end.
 *
 * @param draft of a change, or an object in it: `path` begins there.
 * @throws RangeError if the text has no such index; TypeError if there is no text, or a fixed string.
 */
export function splice<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    index: number,
    deleted: number,
    text = "",
): void {
    const { edit, node, at } = textAt(draft, path)
    if (!(deleted >= 0)) throw new RangeError(`cannot delete ${deleted} characters at ${pointer(at())}`)
    if (typeof text !== "string")
        throw new TypeError(`cannot insert ${describe(text)} into the text at ${pointer(at())}`)
    checkIndex(index, node.text.length, at)
    const start = snap(node.text, index)
    const end = snap(node.text, Math.min(index + Math.trunc(deleted), node.text.length))
    edit.splice(node, start, end - start, wellFormed(text))
}

/**
 * Makes a text this one, by as few edits as are found in reasonable time: for inputs that tell only
 * what they hold. {@link splice} tells more exactly what a user did.
 *
 * @throws TypeError if there is no text at `path`, or a fixed string.
 */
export function updateText<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    text: string,
): void {
    const { edit, node, at } = textAt(draft, path)
    if (typeof text !== "string") throw new TypeError(`cannot store ${describe(text)} as the text at ${pointer(at())}`)
    for (const { index, deleted, inserted } of diff(node.text, wellFormed(text))) {
        edit.splice(node, index, deleted, inserted)
    }
}

/**
 * Marks a range of a text: as bold, as a link, ... The value `null` takes a mark away. Marks are not
 * in `doc()`: `DocHandle.marks` lists them.
 *
 * @param value no object but a Date or bytes.
 */
export function mark<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    range: MarkRange,
    name: string,
    value: unknown,
): void {
    const { edit, node, at } = textAt(draft, path)
    const { start, end, expand = "after" } = range
    checkIndex(end, node.text.length, at)
    checkIndex(start, end, at)
    if (typeof name !== "string") throw new TypeError(`cannot mark the text at ${pointer(at())}: a mark has a name`)
    if (!EXPANDS.includes(expand))
        throw new RangeError(`cannot mark the text at ${pointer(at())}: a mark does not expand "${String(expand)}"`)
    const stored = typeof value === "string" ? wellFormed(value) : edit.read(value, at, [])
    if (stored !== null && typeof stored === "object" && ("make" in stored || "counter" in stored)) {
        throw new TypeError(`cannot mark the text at ${pointer(at())} with ${describe(value)}: only with plain values`)
    }
    const [from, to] = [snap(node.text, start), snap(node.text, end)]
    edit.apply(["mark", node.id, from, to, name, stored as Scalar, expand])
}

const EXPANDS: readonly unknown[] = ["none", "before", "after", "both"] satisfies Expand[]

/** Takes a mark away from a range of a text. */
export function unmark<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    range: MarkRange,
    name: string,
): void {
    mark(draft as object, path as Path, range, name, null)
}

/** Begins a block, such as a paragraph, at an index of a text. It takes one place there. */
export function splitBlock<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    index: number,
    block: object,
): void {
    const { edit, node, at } = textAt(draft, path)
    checkIndex(index, node.text.length, at)
    edit.insertBlock(node, snap(node.text, index), block, at)
}

/** Removes the block at an index of a text, so that what follows it belongs to the one before. */
export function joinBlock<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    index: number,
): void {
    const { edit, node } = blockAt(draft, path, index)
    edit.splice(node, index, 1, "")
}

/** Replaces the block at an index of a text. */
export function updateBlock<D extends object, const P extends Path>(
    draft: D,
    path: P & DraftPath<D, P>,
    index: number,
    block: object,
): void {
    const { edit, node, at } = blockAt(draft, path, index)
    edit.insertBlock(node, index, block, at, 1)
}
