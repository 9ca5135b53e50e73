/** What is done later, each thing once at a time. */
export class Timers {
    readonly #timers = new Map<string, ReturnType<typeof setTimeout>>()

    /** Runs `task` so much later at the latest, unless all are stopped by then. */
    later(name: string, ms: number, task: () => void): void {
        if (this.#timers.has(name)) return
        const run = (): void => {
            this.#timers.delete(name)
            task()
        }
        this.#timers.set(name, setTimeout(run, ms))
    }

    stop(): void {
        for (const timer of this.#timers.values()) clearTimeout(timer)
    }
}
