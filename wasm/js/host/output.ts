import type { StorageWrite } from "../storage.js"
import type { FailureCode } from "../types.js"
import type { DocumentStatus } from "./protocol.js"

/** What `Client.poll` gives: what the engine wants done, and what it has to tell. */
export type Output =
    | { type: "idle"; wakeAt: number | undefined }
    | { type: "connect"; relay: number; connection: number }
    | { type: "disconnect"; connection: number }
    | { type: "send"; connection: number; bytes: Uint8Array<ArrayBuffer>; reads: string | undefined }
    | { type: "ping"; connection: number; bytes: Uint8Array<ArrayBuffer> | undefined }
    | { type: "load"; document: string }
    | { type: "store"; document: string; writes: StorageWrite[] }
    | { type: "storeFailed"; document: string; error: string }
    | { type: "flushed"; document: string }
    | { type: "found"; document: string; code?: FailureCode; error?: string }
    | { type: "changed"; document: string }
    | { type: "takenOut"; document: string }
    | { type: "salvaged"; document: string; error: string }
    | StatusOutput
    | { type: "ephemeral"; document: string; sender: string; message: unknown }
    | { type: "added"; document: string }
    | { type: "current"; asked: number; why: string | undefined }
    | { type: "deleted"; document: string }

/** How safe a document is; `Client.status` gives it too. */
export type StatusOutput = {
    type: "status"
    document: string
    state: DocumentStatus["state"]
    code?: string
    reason?: string
}
