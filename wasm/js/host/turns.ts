// What may take long: it is done in turns of a few milliseconds, between which edits and all else are
// heard.

import { now, type Engine } from "./engine.js"
import { CallError, UNWANTED } from "./errors.js"

/** How long other things wait for what takes long. */
const TURN_MS = 8

export class Turns {
    #engine: Engine
    /** Each step tells whether it was the last. */
    #work: (() => boolean)[] = []
    /** Everything else comes first now. */
    #isResting = false

    constructor(engine: Engine) {
        this.#engine = engine
    }

    /** Does something step by step, until a step gives what is `done`. */
    take<T>(signal: AbortSignal, step: () => { done: T } | undefined): Promise<T> {
        return new Promise((resolve, reject) => {
            const work = (): boolean => {
                try {
                    if (signal.aborted) throw new CallError("failed", UNWANTED)
                    const result = step()
                    if (result) resolve(result.done)
                    return result !== undefined
                } catch (error) {
                    reject(error)
                    return true
                }
            }
            this.#work.push(work)
            this.#turn()
        })
    }

    #turn(): void {
        // What is left of a host that trapped is asked of the next one.
        if (this.#isResting || this.#engine.isStopped) return
        const end = now() + TURN_MS
        for (let work; now() < end && (work = this.#work.shift());) if (!work()) this.#work.push(work)
        this.#isResting = true
        setTimeout(() => {
            this.#isResting = false
            if (this.#work.length > 0) this.#turn()
        })
    }
}
