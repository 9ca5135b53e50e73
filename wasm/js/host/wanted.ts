// Which relays the open pages want, and which token a connection is made with.

/** What a page wants of relays. */
export interface Wishes {
    /** WebSocket urls, without tokens. */
    readonly relays: readonly string[]
    /** Shown to each of them; `true` for a page that is asked for one each time. */
    readonly token?: string | true
    /** When it was given, in milliseconds since 1970. */
    readonly at: number
}

/** With what to connect; no `token` if the last one was refused, and there is no other. */
export interface Found {
    readonly token?: string
    /** The words of the relay that refused. */
    readonly reason?: string | undefined
}

interface Page {
    readonly wishes: Wishes
    readonly ask: (relay: string) => Promise<string>
}

export class Wanted {
    #pages = new Map<object, Page>()
    /** Tokens that a relay refused, with its last words; the empty one is none. */
    #refused = new Map<string, Map<string, string>>()
    /** Found to be worth a try, and about to be used. */
    #next = new Map<string, string>()

    /** `ask` gives the page's token for a relay, if its wishes have `true`. */
    add(page: object, wishes: Wishes, ask: (relay: string) => Promise<string>): void {
        this.#pages.set(page, { wishes, ask })
        // Somebody who opens a page expects that it is tried.
        const { relays, token = "" } = wishes
        if (token !== true) for (const relay of relays) this.#refused.get(relay)?.delete(token)
    }

    remove(page: object): void {
        this.#pages.delete(page)
    }

    get relays(): string[] {
        return [...new Set([...this.#pages.values()].flatMap(({ wishes }) => wishes.relays))]
    }

    /** Those that give a token for it, the newest first. */
    #givers(relay: string): Page[] {
        const gives = ({ wishes: { relays, token } }: Page): boolean => relays.includes(relay) && !!token
        return [...this.#pages.values()].filter(gives).sort((a, b) => b.wishes.at - a.wishes.at)
    }

    /** Whether a page may give another token for it each time. */
    isAsked(relay: string): boolean {
        return this.#givers(relay).some(({ wishes }) => wishes.token === true)
    }

    refuse(relay: string, token: string, reason: string): void {
        const refused = this.#refused.get(relay) ?? new Map<string, string>()
        refused.delete(token)
        this.#refused.set(relay, refused.set(token, reason))
    }

    /** Finds a token that was not refused: of those pages that give one, the newest. */
    async find(relay: string): Promise<Found> {
        const next = this.#next.get(relay)
        if (next !== undefined) return { token: next }
        const refused = this.#refused.get(relay) ?? new Map<string, string>()
        const givers = this.#givers(relay)
        let failure: unknown
        for (const { wishes, ask } of givers) {
            try {
                const token = wishes.token === true ? await ask(relay) : (wishes.token ?? "")
                if (!refused.has(token)) return { token }
            } catch (error) {
                failure ??= error
            }
        }
        if (failure !== undefined) throw failure
        if (givers.length === 0 && !refused.has("")) return { token: "" }
        return { reason: [...refused.values()].at(-1) }
    }

    /** Within `action`, this token is the one to be found. */
    using(relay: string, token: string, action: () => void): void {
        this.#next.set(relay, token)
        action()
        this.#next.delete(relay)
    }
}
