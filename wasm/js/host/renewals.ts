// When a page is asked for another token, after a relay refused one: at once, and then ever later.

/** Between two times that a page is asked for another token than those that were refused. */
const RENEW_MS_MIN = 1_000
const RENEW_MS_MAX = 60_000

interface Renewal {
    /** To wait before the next time. */
    readonly ms: number
    readonly timer?: ReturnType<typeof setTimeout>
}

export class Renewals {
    #retry: (relay: string) => void
    #renewals = new Map<string, Renewal>()

    /** `retry` is called when it is time. */
    constructor(retry: (relay: string) => void) {
        this.#retry = retry
    }

    /** Those that refused, and that let nobody in since. */
    get relays(): string[] {
        return [...this.#renewals.keys()]
    }

    /** A relay refused. */
    renew(relay: string): void {
        const { ms, timer } = this.#renewals.get(relay) ?? { ms: 0 }
        clearTimeout(timer)
        const next = Math.min(Math.max(2 * ms, RENEW_MS_MIN), RENEW_MS_MAX)
        this.#renewals.set(relay, { ms: next, timer: setTimeout(() => this.#retry(relay), ms) })
    }

    /** Somebody who is let in and put out again, and so on, waits all the same. */
    putOut(relay: string): void {
        this.#renewals.set(relay, { ms: RENEW_MS_MIN })
    }

    /** It let somebody in, or is not wanted any more. */
    forget(relay: string): void {
        clearTimeout(this.#renewals.get(relay)?.timer)
        this.#renewals.delete(relay)
    }

    stop(): void {
        for (const { timer } of this.#renewals.values()) clearTimeout(timer)
    }
}
