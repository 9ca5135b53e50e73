/**
 * What `change` hands out: a document that can be edited as if it were plain JavaScript. Each
 * edit is applied to the tree at once, and noted as the operation that the host will get.
 */

import { sourcesOf } from "./draft/context.js"
import { Edit } from "./draft/edit.js"
import { makers } from "./draft/proxies.js"
import type { Draft } from "./draft/types.js"
import type { ObjectId, Operation } from "./operations.js"
import type { Tree } from "./tree.js"
import type { Patch } from "./types.js"

export { entriesOf, fill, snapshot } from "./draft/copies.js"
export { deleteAt, insertAt } from "./draft/lists.js"
export { joinBlock, mark, splice, splitBlock, unmark, updateBlock, updateText, type MarkRange } from "./draft/texts.js"
export type { Draft, DraftList } from "./draft/types.js"

/**
 * Lets `fn` edit the document, and returns what it did, for the host. If `fn` throws or is
 * asynchronous, the tree is as it was before.
 *
 * @param nextId makes a name for a new object: `~1`, `~2`, ...
 * @param patches gets what changed, if given.
 * @internal
 */
export function change<T>(
    tree: Tree,
    fn: (draft: Draft<T>) => unknown,
    nextId: () => ObjectId,
    patches?: Patch[],
): Operation[] {
    tree.begin()
    const edit = new Edit(tree, nextId, patches, makers)
    const patchesBefore = patches?.length
    try {
        const result = fn(edit.draft(tree.root) as Draft<T>) as { then?: unknown } | undefined
        if (typeof result?.then === "function") {
            // It goes on, and fails at its next use of the draft.
            void Promise.resolve(result).catch(() => {})
            throw new TypeError("a change must be synchronous: await first, then change")
        }
        if (edit.operations.length === 0 && sourcesOf(result).includes(tree.root)) {
            throw new TypeError("nothing was changed: edit the draft, as what the function returns is not used")
        }
        edit.checkStored()
    } catch (error) {
        tree.rollback()
        if (patches) patches.length = patchesBefore!
        throw error
    } finally {
        edit.ended = true
    }
    tree.commit()
    return edit.operations
}
