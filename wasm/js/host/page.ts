// A page, as its host sees it.

import type { Engine } from "./engine.js"
import type { CallError } from "./errors.js"
import type { HostMessage, PageMessage, Port } from "./protocol.js"
import { Tokens } from "./tokens.js"

/** The page's end: of a page that is gone, one at which nobody is. */
export const NOWHERE: Port<HostMessage, PageMessage> = { post: () => {}, onmessage: undefined, close: () => {} }

export class Page {
    /** Calls that may still be cancelled. */
    readonly calls = new Map<number, AbortController>()
    /** Documents that it cannot go on with, and why: nothing true can be answered about its edits. */
    readonly lost = new Map<string, CallError>()
    readonly tokens: Tokens
    /** Of documents that it goes on with: what it says of them is heard after that, in order. */
    #resuming = new Map<string, Promise<void>>()
    /** It is gone, and what it edited is being made and stored: it is let go of after that. */
    isLeaving = false

    constructor(
        /** As its entries in the journal name it; empty if there can be none. */
        readonly name: string,
        readonly port: Port<HostMessage, PageMessage>,
    ) {
        this.tokens = new Tokens((message) => this.port.post(message))
    }

    /** The documents that it goes on with. */
    get resuming(): string[] {
        return [...this.#resuming.keys()]
    }

    /**
     * Does what the page says, once its earlier words on these documents are done: at once, unless it
     * goes on with one of them. What `isAwaited` is done when its promise is.
     */
    inOrder(engine: Engine, documents: readonly string[], action: () => unknown, isAwaited = false): void {
        const earlier = documents.flatMap((document) => this.#resuming.get(document) ?? [])
        if (earlier.length === 0 && !isAwaited) return void action()
        const settled = Promise.all(earlier)
            .then(() => {
                let result: unknown
                engine.heed(() => (result = action()))
                return isAwaited ? result : undefined
            })
            // As an uncaught error is; what follows is done.
            .catch((error: unknown) => void setTimeout(() => Promise.reject(error)))
            .then(() => {
                for (const document of documents) {
                    if (this.#resuming.get(document) === settled) this.#resuming.delete(document)
                }
            })
        for (const document of documents) this.#resuming.set(document, settled)
    }

    /** It is gone: nobody waits for what it asked, and it is asked no more. */
    end(): void {
        for (const call of this.calls.values()) call.abort()
        this.tokens.end()
        this.port.close()
    }
}

/** Those that a host serves. */
export class Pages extends Set<Page> {
    tell(message: HostMessage): void {
        for (const page of this) page.port.post(message)
    }
}
