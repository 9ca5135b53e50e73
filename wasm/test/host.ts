/**
 * The host's side of a document, as the differential test needs it. The tests run against
 * Automerge's own JavaScript; the real host is put in by `RECONVERGE_HOST`.
 */

import type { ObjectId, Operation } from "../js/operations.js"
import type { Heads, Path, Span } from "../js/types.js"

export interface HostDocument {
    /** Makes the edits of one change. Returns the real names of the objects made, by those the page chose. */
    change(operations: readonly Operation[]): Map<ObjectId, ObjectId>
    /** What another page of the same host is told of the last change; not every host has others. */
    told?: Operation[]
    /** Takes over what others did; returns what that changed, for a page that has seen all before. */
    merge(bytes: Uint8Array): Operation[]
    /** The document as operations on an empty one, for a page that opens it. */
    read(): Operation[]
    /** The parts of a text, now or at these heads; not every host tells them. */
    spans?(object: ObjectId, heads?: Heads): Span[]
    heads?(): Heads
    /** What makes the state at some heads, what leads from there to others, and that without names; likewise. */
    diff?(before: Heads, after: Heads): [state: Operation[], since: Operation[], steps: [Path, Operation[]][]]
    /** In Automerge's format. */
    save(): Uint8Array
    close(): void
}

/** Makes an empty document, whose edits are by this actor. */
export type OpenHost = (actor: string) => HostDocument
