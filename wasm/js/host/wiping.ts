// Removing all that is kept, once it is sure that nothing is lost by that.

import type { Connections } from "./connections.js"
import type { Departed } from "./departed.js"
import type { Engine } from "./engine.js"
import { CallError, UNWANTED } from "./errors.js"
import { words, type Wiped } from "./protocol.js"
import type { Statuses } from "./statuses.js"
import type { Store } from "./store.js"

/** What is being sent is waited for so long before it is told that no relay has it. */
const SEND_MS_MAX = 5_000

/** Before a wipe looks again for what pages did not come to tell. */
const UNHEARD_MS = 50

/** What a wipe needs of its host. */
export interface WipingOptions {
    readonly engine: Engine
    readonly store: Store
    readonly departed: Departed
    readonly statuses: Statuses
    readonly connections: Connections
    /** The next host is to begin with nothing. Told is what no relay has. */
    ended(unsent: readonly string[]): Promise<void>
}

export class Wiping {
    #options: WipingOptions

    constructor(options: WipingOptions) {
        this.#options = options
    }

    /**
     * Removes all that is kept, in memory and in storage. Only a failure is answered, and that there is
     * something that no relay has: the next host's first word tells all pages that it is done.
     */
    async wipe(evenUnsent: boolean, signal: AbortSignal): Promise<Wiped> {
        const { engine, store, departed, statuses, ended } = this.#options
        const late = AbortSignal.timeout(SEND_MS_MAX)
        let unsent: string[]
        for (;;) {
            await store.unlessWiped()
            // What pages that are gone left is made, and may be sent.
            await departed.allTakenUp()
            if (!evenUnsent && !late.aborted) await engine.until(() => !this.#isSending, late).catch(() => {})
            const unheard = await departed.unheard()
            if (store.isWiping) continue
            unsent = [...new Set([...statuses.unsaved, ...unheard])]
            if (evenUnsent || unsent.length === 0 || late.aborted) break
            if (unheard.length === 0 && !this.#isSending) break
            await new Promise((resume) => setTimeout(resume, UNHEARD_MS))
        }
        if (signal.aborted) throw new CallError("failed", UNWANTED)
        if (unsent.length > 0 && !evenUnsent) return { unsent, isWiped: false }
        // In one commit, begun in the task that looked: it happens, or it does not.
        await store
            .wipe(() => ended(unsent))
            .catch((error: unknown) => {
                throw new CallError("storage", words(error))
            })
        return new Promise(() => {})
    }

    /** Whether some relay is about to have what it lacks. */
    get #isSending(): boolean {
        const { statuses, connections } = this.#options
        return statuses.state === "saving" || (statuses.state === "offline" && connections.isConnecting)
    }
}
