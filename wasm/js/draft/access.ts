// What stands behind a draft that is handed in.

import { child, type ListNode, TextNode } from "../tree.js"
import type { Path, Prop } from "../types.js"
import { type Context, contextIn } from "./context.js"
import type { Edit } from "./edit.js"
import { type PathOf, pointer } from "./faults.js"
import { isObject } from "./values.js"

export function contextOf(draft: object): Context & { edit: Edit } {
    const context = isObject(draft) && contextIn(draft)
    if (!context) throw new TypeError("only the draft of a change can be edited")
    context.edit.checkOpen()
    return context as Context & { edit: Edit }
}

export function listOf(list: object): { edit: Edit; node: ListNode } {
    const { edit, node } = contextOf(list)
    if (node.kind !== "list") throw new TypeError(`there is no list at ${pointer(edit.tree.path(node))}`)
    return { edit, node }
}

export function textAt(draft: object, path: Path): { edit: Edit; node: TextNode; at: PathOf } {
    const { edit, node } = contextOf(draft)
    edit.checkWritable(node)
    const entry = edit.tree.at(path, node)
    const at = (): Prop[] => [...edit.tree.path(node), ...path]
    if (typeof entry === "string")
        throw new TypeError(`the string at ${pointer(at())} is fixed: it can only be replaced`)
    if (!(entry instanceof TextNode)) throw new TypeError(`there is no text at ${pointer(at())}`)
    return { edit, node: entry, at }
}

export function blockAt(draft: object, path: Path, index: number): { edit: Edit; node: TextNode; at: PathOf } {
    const text = textAt(draft, path)
    if (!child(text.node, index)) throw new RangeError(`there is no block at ${pointer([...text.at(), index])}`)
    return text
}
