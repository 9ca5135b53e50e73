import type { SyncState, SyncStatus } from "./types.js"

/** From the least safe on. */
const STATES: readonly SyncState[] = ["saving", "offline", "refused", "saved"]

/** How safe many documents are in sum: no change costs a look at all of them. */
export class Tally {
    /** Those in each state but the last. */
    #documents = STATES.slice(0, -1).map(() => new Set<string>())

    set(document: string, state: SyncState): void {
        this.#documents.forEach((documents) => documents.delete(document))
        this.#documents[STATES.indexOf(state)]?.add(document)
    }

    /** Those that are not saved. */
    get unsaved(): string[] {
        return this.#documents.flatMap((documents) => [...documents])
    }

    get state(): SyncState {
        const at = this.#documents.findIndex(({ size }) => size > 0)
        return STATES.at(at)!
    }
}

export function isSame(one: SyncStatus, other: SyncStatus): boolean {
    return (
        one.state === other.state &&
        one.code === other.code &&
        one.reason === other.reason &&
        one.storageError === other.storageError
    )
}
