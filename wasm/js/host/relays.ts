// Which relays the engine has: those that pages want, and for a while those that no page wants any
// more. The outbox speaks for all of them, so storage knows their names before the engine does.

import type { Storage } from "../storage.js"
import type { Connections } from "./connections.js"
import { isNoneOf, nameRelays } from "./database.js"
import { now, type Engine } from "./engine.js"
import type { Pages } from "./page.js"
import type { Store } from "./store.js"
import type { Wanted } from "./wanted.js"

/** Relays that no page wants any more are named so long: a tab may be reloading, or not heard yet. */
const AWAY_MS = 10_000

/** What a set of relays needs of its host. */
export interface RelaysOptions {
    readonly engine: Engine
    readonly pages: Pages
    readonly storage: Storage
    readonly store: Store
    readonly wanted: Wanted
    readonly connections: Connections
    /** Documents that are not opened. */
    readonly avoid: readonly string[]
}

export class Relays {
    #options: RelaysOptions
    /** Those that the engine has, in its order. */
    #relays: string[] = []
    /** One after the other, other relays are named in storage. */
    #naming: Promise<unknown> = Promise.resolve()
    #awayTimer: ReturnType<typeof setTimeout> | undefined

    constructor(options: RelaysOptions) {
        this.#options = options
    }

    /** Wanted or away. */
    get all(): readonly string[] {
        return this.#relays
    }

    /** The engine has these from now on, and what was put into the outbox for them. */
    use(wanted: readonly string[], away: readonly string[], outbox: readonly string[] = []): void {
        const { engine, pages, connections, avoid } = this.#options
        this.#relays = [...wanted, ...away]
        connections.use(wanted, away)
        if (away.length > 0) this.nameLater()
        engine.heed(() => {
            engine.client.nameRelays(now(), [...wanted], [...away])
            if (outbox.length > 0) engine.client.outbox(now(), outbox.filter(isNoneOf(avoid)))
        })
        pages.tell(connections.message)
    }

    /** Pages came or went: connects what they want now. What is new is named in storage first. */
    want(): void {
        const { relays } = this.#options.wanted
        const known = relays.filter((relay) => this.#relays.includes(relay))
        const away = this.#relays.filter(isNoneOf(relays))
        if (String(this.#options.connections.relays) === String(relays)) return
        this.use(known, away)
        this.#name()
    }

    /** Storage forgets those that are away, if they still are then; or is told of what it does not know. */
    nameLater(): void {
        clearTimeout(this.#awayTimer)
        if (!this.#options.engine.isStopped) this.#awayTimer = setTimeout(() => this.#name(true), AWAY_MS)
    }

    stop(): void {
        clearTimeout(this.#awayTimer)
    }

    #name(isForgetting = false): void {
        const name = (): Promise<void> => this.#nameNow(isForgetting)
        this.#naming = this.#naming.then(name).catch(() => {
            // Until the storage knows, none is forgotten; a new one that it does not know is new to the next
            // host, too.
            const { relays } = this.#options.wanted
            this.use(relays, this.#relays.filter(isNoneOf(relays)))
            this.nameLater()
        })
    }

    async #nameNow(isForgetting: boolean): Promise<void> {
        const { engine, storage, store, wanted } = this.#options
        const { relays } = wanted
        const away = isForgetting ? [] : this.#relays.filter(isNoneOf(relays))
        const added = await nameRelays(storage, [...relays, ...away], (writes) => store.commit(writes))
        if (engine.isStopped) return
        const now = wanted.relays
        const names = [...relays, ...away]
        const isNow = (relay: string): boolean => now.includes(relay)
        this.use(names.filter(isNow), names.filter(isNoneOf(now)), added)
        if (now.some(isNoneOf(names))) this.#name()
    }
}
