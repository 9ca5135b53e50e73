/** How many events a slow consumer of an iteration can be behind, before it misses the oldest. */
export const BACKLOG_MAX = 1000

type Listener<T> = (event: T) => void

/** Events with names. Listeners run in the order in which they came, at once. */
export class Emitter<Events extends object> {
    #listeners = new Map<keyof Events, Set<Listener<never>>>()
    #ends = new Set<() => void>()
    /** What is told after what is being told: a listener may cause it. */
    #next: (() => void)[] = []
    #isTelling = false
    #isClosed = false

    /** Only events with these names can be heard, if they are given. */
    constructor(readonly names?: readonly (keyof Events)[]) {}

    /** Returns "off". A function that listens already is not called twice. */
    on<K extends keyof Events>(event: K, listener: Listener<Events[K]>): () => void {
        if (this.names?.includes(event) === false) {
            throw new TypeError(`there is no event "${String(event)}"; there are ${this.names.join(", ")}`)
        }
        if (typeof listener !== "function") throw new TypeError("a listener is a function")
        const listeners = this.#listeners.get(event) ?? new Set()
        this.#listeners.set(event, listeners.add(listener))
        return () => this.off(event, listener)
    }

    off<K extends keyof Events>(event: K, listener: Listener<Events[K]>): void {
        this.#listeners.get(event)?.delete(listener)
    }

    /** Whether anyone listens: for events that cost something to make. */
    has(event: keyof Events): boolean {
        return (this.#listeners.get(event)?.size ?? 0) > 0
    }

    /** Tells all listeners; what one of them causes is told to all when all know this. */
    emit<K extends keyof Events>(event: K, value: Events[K]): void {
        this.#inTurn(() => this.#tell(event, value))
    }

    #inTurn(action: () => void): void {
        this.#next.push(action)
        if (this.#isTelling) return
        this.#isTelling = true
        try {
            for (let next; (next = this.#next.shift());) next()
        } finally {
            this.#isTelling = false
        }
    }

    #tell<K extends keyof Events>(event: K, value: Events[K]): void {
        const listeners = this.#listeners.get(event) as Set<Listener<Events[K]>> | undefined
        for (const listener of [...(listeners ?? [])]) {
            if (!listeners?.has(listener)) continue
            try {
                listener(value)
            } catch (error) {
                report(error)
            }
        }
    }

    /** Calls one listener, soon, if it still listens. */
    tell<K extends keyof Events>(event: K, listener: Listener<Events[K]>, value: Events[K]): void {
        queueMicrotask(() => {
            if (this.#listeners.get(event)?.has(listener)) listener(value)
        })
    }

    /**
     * The events from now on. A consumer that is slow gets the newest 1,000 of those that it has
     * not taken yet. The iteration ends with `signal`, or with the emitter.
     */
    iterate<K extends keyof Events>(event: K, signal?: AbortSignal): AsyncIterableIterator<Events[K]> {
        const backlog: Events[K][] = []
        let waiting: ((result: IteratorResult<Events[K], undefined>) => void)[] = []
        let ended = false

        const off = this.on(event, (value) => {
            const next = waiting.shift()
            if (next) return next({ value, done: false })
            if (backlog.push(value) > BACKLOG_MAX) backlog.shift()
        })
        const end = (): void => {
            ended = true
            off()
            signal?.removeEventListener("abort", end)
            this.#ends.delete(end)
            for (const next of waiting) next({ value: undefined, done: true })
            waiting = []
        }
        this.#ends.add(end)
        if (signal?.aborted || this.#isClosed) end()
        signal?.addEventListener("abort", end)

        return {
            next: () =>
                new Promise((resolve) => {
                    if (backlog.length > 0) resolve({ value: backlog.shift()!, done: false })
                    else if (ended) resolve({ value: undefined, done: true })
                    else waiting.push(resolve)
                }),
            return: async () => {
                backlog.length = 0
                end()
                return { value: undefined, done: true }
            },
            [Symbol.asyncIterator]() {
                return this
            },
        }
    }

    /** Ends all iterations, once their consumers have taken what is left, and forgets the listeners. */
    close(): void {
        this.#inTurn(() => {
            this.#isClosed = true
            for (const end of [...this.#ends]) end()
            this.#listeners.clear()
        })
    }
}

/** As an uncaught error is: a listener's fault must not stop the others, and must not be hidden. */
function report(error: unknown): void {
    if (typeof reportError === "function") reportError(error)
    else console.error(error)
}
