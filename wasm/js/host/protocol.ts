// What a page and its host say to each other.
//
// A host has the documents; a page has views of them. Messages of either side arrive in order, or
// the other side is gone. Then the page finds the next host, and tells it what the last one had
// not stored (`Resume`).

import type { Operation } from "../operations.js"
import type {
    ChangeInfo,
    ConnectionStatus,
    FailureCode,
    Heads,
    Mark,
    Path,
    Prop,
    QuarantinedChange,
    Span,
    SyncState,
} from "../types.js"
import type { Wishes } from "./wanted.js"

/** How a host is started. */
export interface HostOptions extends Wishes {
    /** Names the database, the lock and the channels. */
    readonly name: string
    readonly peerId: string
    /** Documents are kept by the browser, and by nobody else. */
    readonly keeps: boolean
    /** Documents at which the engine trapped: they are not opened again. */
    readonly avoid?: readonly string[]
}

/** What a page shows of a document, and edits. */
export interface Base {
    /** The last of its edits in it. */
    readonly seq: number
    /** None if it must forget what it shows. */
    readonly heads: Heads
    /** What it must still be told to show what there is at `heads`. */
    readonly behind: readonly Operation[]
}

/** What a page has seen of a document that some host gave it, and what it edited since. */
export interface Resume {
    /** Names the handle that made the edits, and no other ever. */
    readonly author: string
    readonly base: Base
    /** The first of them of which it is not known that it is stored, if there is one. */
    readonly unstored: number | undefined
    /** From that one on, in order, up to the first call that is not answered; the others follow it. */
    readonly edits: readonly Edit[]
    /** What came back when edits were taken back, each as it was `Taken`. */
    readonly renamed: readonly Uint8Array[]
}

/** The edits of a handle up to `seq` are in local storage; so is all that it showed after them. */
export interface StoredEdits extends Base {
    /** The real names of objects. */
    readonly names: readonly (readonly [string, string])[]
    /** What takes edits back. */
    readonly records: readonly Recorded[]
    /** What was taken back, as it was called. */
    readonly taken: readonly (readonly [as: number, Taken])[]
}

/** What takes an edit back, by the number of the edit. */
export type Recorded = readonly [seq: number, record: Uint8Array]

/** What became of edits that were taken back, or done again. */
export interface Taken {
    /** 0 if nothing was left of them, 1 if a part was, 2 if all was. */
    readonly done: number
    /** What takes this back again. */
    readonly record: Uint8Array
    /** What came back is called otherwise now. */
    readonly renamed: Uint8Array
    /** Of that, the objects: each by its name before and its name now. */
    readonly objects: readonly string[]
}

export interface Edit {
    /** Counts the edits of this page in this document, from 1. */
    readonly seq: number
    readonly operations: readonly Operation[]
    /** Seconds since 1970, with parts of them: what was typed in one go is taken back in one. */
    readonly time: number
    readonly message?: string
    /** In whose name. */
    readonly by?: string
    /** Nobody will take it back. */
    readonly isFinal?: boolean
}

/** What a page asks for, with the arguments and the result. */
export interface Calls {
    /** Under a name that the page drew, so that it is one document, whoever makes it. */
    create: [[name: string, operations: readonly Operation[], time: number, by?: string | undefined], Opened]
    /** Nothing for a page that has it open: it shows it already. */
    open: [[document: string], Opened | undefined]
    resume: [[document: string, resume: Resume], void]
    import: [[name: string, bytes: Uint8Array, time: number], Opened]
    clone: [[name: string, of: string, time: number], Opened]
    export: [[document: string], Uint8Array]
    delete: [[document: string], void]
    merge: [[document: string, other: string], void]
    flush: [[], void]
    /** The names of those in storage. */
    documents: [[], string[]]
    synced: [[document: string, level: "local" | "durable" | "replicated"], void]
    current: [[document: string, ms: number], void]
    heads: [[document: string], Heads]
    state: [[document: string, heads: Heads], Operation[]]
    /** What changed in objects, by their paths instead of their names. */
    diff: [[document: string, before: Heads, after: Heads], [path: Path, operations: Operation[]][]]
    /** Of an object and what is in it. */
    history: [[document: string, object: string], ChangeInfo[]]
    actor: [[document: string, by?: string | undefined], string]
    conflicts: [[document: string, object: string, prop: Prop], Record<string, unknown> | undefined]
    /**
     * Of an object, or if that was not there, of a key of a map. What takes it back is called `as`.
     * Undefined if there was nothing to do.
     */
    restore: [
        [
            document: string,
            heads: Heads,
            note: Omit<Edit, "seq" | "operations">,
            as: number | undefined,
            object?: string | undefined,
            map?: string | undefined,
            key?: string,
        ],
        Uint8Array | undefined,
    ]
    quarantined: [[document: string], QuarantinedChange[]]
    changeAt: [[document: string, heads: Heads, edit: Omit<Edit, "seq">], Heads]
    cursor: [[document: string, object: string, index: number], string]
    position: [[document: string, object: string, cursor: string], number]
    marks: [[document: string, object: string], Mark[]]
    spans: [[document: string, object: string], Span[]]
    /**
     * Takes edits back, in the order in which they were made, by what was recorded of each, or by its
     * number while the page was not told. What takes that back is called `as`, a number below all
     * others; the page has been told of those down to `told`.
     */
    take: [
        [
            document: string,
            records: readonly (readonly [number, Uint8Array | undefined])[],
            as: number,
            told: number,
            time: number,
            by?: string | undefined,
        ],
        Taken,
    ]
    fetch: [[document: string], void]
    wipe: [[evenUnsent: boolean], Wiped]
    online: [[online: boolean], void]
    shutdown: [[], void]
}

export type CallName = keyof Calls

/** A document as it is opened. */
export interface Opened {
    readonly document: string
    readonly heads: Heads
    /** What makes its contents out of nothing. */
    readonly operations: readonly Operation[]
    readonly status: DocumentStatus
}

/** Documents that have what no relay has, and whether all was wiped. */
export interface Wiped {
    readonly unsent: readonly string[]
    readonly isWiped: boolean
}

export interface DocumentStatus {
    readonly state: SyncState
    readonly code?: string
    readonly reason?: string
    readonly storageError?: string
}

/** What becomes of a page's word: why, in a form that crosses to another thread. */
export interface Failure {
    readonly code: FailureCode
    readonly message: string
}

export type PageMessage =
    /**
     * It wants to know what is so, before anything changes, and has heard of this wipe. What it said
     * before that is said again.
     */
    | { readonly type: "hello"; readonly wiped: string | undefined }
    /** The token that it was asked for, or why it gives none. */
    | { readonly type: "token"; readonly relay: string; readonly token: string | undefined; readonly failure: string }
    | { readonly type: "bye" }
    /** Somebody looks at the page, or there is a network again. */
    | { readonly type: "wake"; readonly isOtherNetwork: boolean }
    | { readonly type: "cancel"; readonly call: number }
    | { readonly type: "call"; readonly call: number; readonly name: CallName; readonly args: readonly unknown[] }
    | {
          readonly type: "edit"
          readonly document: string
          readonly author: string
          readonly edit: Edit
          /** The last update that the page took; one that it did not take is gone. */
          readonly seen: number
          /** Names of objects up to this edit were replaced by real ones. */
          readonly named: number
      }
    | { readonly type: "seen"; readonly document: string; readonly update: number }
    | { readonly type: "broadcast"; readonly document: string; readonly message: unknown }
    | { readonly type: "release"; readonly document: string }

/** A host is there. */
export interface Welcome {
    readonly type: "welcome"
    /** Names the last wipe, if there was one. Another one than before has ended all that was begun. */
    readonly wiped: string | undefined
    /** Of what it wiped, that which no relay has, as far as that is known. */
    readonly unsent: readonly string[]
}

export type HostMessage =
    | Welcome
    | { readonly type: "result"; readonly call: number; readonly value?: unknown; readonly failure?: Failure }
    /**
     * What others changed, or the host for the page, as `own`. A page whose last edit is not `processed` drops it, and gets another after
     * that edit.
     */
    | {
          readonly type: "update"
          readonly document: string
          readonly update: number
          readonly processed: number
          readonly own: boolean
          readonly heads: Heads
          readonly operations: readonly Operation[]
          /** They take the place of all that was. */
          readonly whole: boolean
      }
    | ({ readonly type: "stored"; readonly document: string } & StoredEdits)
    /** An edit was not possible. A whole update follows, and no edit before that counts. */
    | { readonly type: "rejected"; readonly document: string; readonly seq: number; readonly message: string }
    /** A part of an edit was left out, as its place is gone. The rest is made. */
    | { readonly type: "leftOut"; readonly document: string; readonly seq: number }
    /** Changes were taken out of it and are kept aside. */
    | { readonly type: "takenOut"; readonly document: string }
    /** Of what is `processed` of the page's edits. */
    | {
          readonly type: "status"
          readonly document: string
          readonly status: DocumentStatus
          readonly processed: number
      }
    | { readonly type: "ephemeral"; readonly document: string; readonly sender: string; readonly message: unknown }
    | { readonly type: "deleted"; readonly document: string }
    /** It is among the documents that there are, or no more. */
    | { readonly type: "listed"; readonly document: string; readonly isHere: boolean }
    | { readonly type: "connection"; readonly connection: ConnectionStatus }
    /** All that there are, and whether any page said that there should be none. */
    | {
          readonly type: "relays"
          readonly connections: readonly ConnectionStatus[]
          readonly online: boolean
      }
    /** Of all documents in sum. */
    | { readonly type: "sum"; readonly status: DocumentStatus }
    /** A connection is about to be made, with a token of this page. */
    | { readonly type: "ask"; readonly relay: string }
    | { readonly type: "problem"; readonly message: string }

/** One end of the way between a page and a host. */
export interface Port<Out, In> {
    post(message: Out): void
    onmessage: ((message: In) => void) | undefined
    close(): void
}

/** Before the key of an entry of the journal that is not tried any more: no page has this name. */
export const ASIDE = "aside"

/** What an error says, in a form that crosses to another thread. */
export function words(error: unknown): string {
    return error instanceof Error ? error.message : String(error)
}
