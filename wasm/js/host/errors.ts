// Why a host does not do what it was asked.

import type { FailureCode } from "../types.js"

/** A call that failed for a reason that the caller can tell apart. */
export class CallError extends Error {
    constructor(
        readonly code: FailureCode,
        message: string,
    ) {
        super(message)
    }
}

/** The engine trapped, and with it ended the host: nothing can be gone on with. */
export class EngineError extends Error {}

export const DOCUMENT_GONE = "the document was deleted, or let go of"
export const AVOIDED = "the document engine failed on this document"
export const UNWANTED = "nobody waits for it"
export const SHUT_DOWN = "the repo was shut down"
