// How safe documents are: which of them local storage could not take, and what all of them are in
// sum.

import { isSame, Tally } from "../tally.js"
import type { StatusOutput } from "./output.js"
import type { DocumentStatus } from "./protocol.js"

export class Statuses {
    #tally = new Tally()
    #refusal: { code?: string; reason?: string } = {}
    /** What of the sum pages were told. */
    #sum: DocumentStatus = { state: "saved" }
    /** Documents whose last commit failed, and why. */
    #unstored = new Map<string, string>()

    /** `outbox` are the documents in it: until they are read, nothing is known but that some relay lacks something. */
    constructor(outbox: readonly string[]) {
        for (const document of outbox) this.#tally.set(document, "offline")
    }

    set(output: StatusOutput): void {
        this.#tally.set(output.document, output.state)
        if (output.state === "refused") this.#refusal = output
    }

    /** A document was deleted. */
    delete(document: string): void {
        this.#tally.set(document, "saved")
        this.#unstored.delete(document)
    }

    /** A commit of a document failed. */
    failed(document: string, error: string): void {
        this.#unstored.set(document, error)
    }

    /** All of a document is stored. Gives whether the last commit before had failed. */
    flushed(document: string): boolean {
        return this.#unstored.delete(document)
    }

    /** Why the last commit of a document failed, if it did. */
    storageError(document: string): string | undefined {
        return this.#unstored.get(document)
    }

    /** Of all documents, the least safe state. */
    get state(): DocumentStatus["state"] {
        return this.#tally.state
    }

    /** Documents with what no relay has. */
    get unsaved(): string[] {
        return this.#tally.unsaved
    }

    /** Of all documents, as pages were told last. */
    get sum(): DocumentStatus {
        return this.#sum
    }

    /** Of all documents, if that changed. */
    next(): DocumentStatus | undefined {
        const { state } = this.#tally
        const [storageError] = this.#unstored.values()
        const sum = {
            ...status({ ...(state === "refused" && this.#refusal), state }),
            ...(storageError !== undefined && { storageError }),
        }
        if (isSame(sum, this.#sum)) return undefined
        return (this.#sum = sum)
    }
}

export function status(of: { state: DocumentStatus["state"]; code?: string; reason?: string }): DocumentStatus {
    const { state, code, reason } = of
    return code === undefined || reason === undefined ? { state } : { state, code, reason }
}
