/**
 * What happens to a document, in the form in which a page and its host tell each other: the edits
 * of a page ({@link Operation}) and what changed for it ({@link Operation} too, called patches on
 * that way). Both are applied in order, each to what the one before left.
 *
 * Objects have names, not paths: what others insert before an object does not change how it is
 * addressed. The root is `"_root"`. An object that a page makes has a name of the page's choice
 * (`"~1"`, `"~2"`, ... counted over the life of the handle), until the host tells its real one.
 */

import type { Expand, Prop, Scalar } from "./types.js"

/** The name of a map, list or text within a document. */
export type ObjectId = string

export const ROOT: ObjectId = "_root"

export type ObjectKind = "map" | "list" | "text"

/** A new object, empty but for the text; what is in it follows by operations on it. */
export interface NewObject {
    make: ObjectKind
    id: ObjectId
    /** The characters of a new text. */
    text?: string
}

/** A string among these is a fixed one, which is only ever replaced; text that is edited is an object. */
export type NewValue = Scalar | { counter: number } | NewObject

export type Operation =
    /** Sets a key of a map, or replaces an element of a list. */
    | ["put", ObjectId, Prop, NewValue]
    /** Inserts into a list. A block in a text is such an insertion too, of one map. */
    | ["insert", ObjectId, number, NewValue[]]
    /** Removes a key, or so many elements of a list from this index on. */
    | ["delete", ObjectId, Prop, number]
    /** Replaces so many UTF-16 code units of a text, from this index on. */
    | ["splice", ObjectId, number, number, string]
    /** Adds to a counter. */
    | ["increment", ObjectId, Prop, number]
    /** Marks a range of a text; the value `null` takes a mark away. */
    | ["mark", ObjectId, number, number, string, Scalar, Expand]
