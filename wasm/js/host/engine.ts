// The engine, of which every call may be the last: when it traps, its memory is of no use any more.
//
// Whatever is done with it may have it want something. So it is polled after that, what it wants is
// done, and whoever waits for something is asked again whether it is so.

import { __wbg_reset_state as renewInstance, type Client, documentId } from "../../dist/core/reconverge.js"
import { CallError, EngineError, SHUT_DOWN, UNWANTED } from "./errors.js"
import type { Output } from "./output.js"
import { decode, encode } from "./utf8.js"

/** What becomes of the engine, for its host. */
export interface EngineEvents {
    /** It wants this done, or tells this. */
    output(output: Exclude<Output, { type: "idle" }>): void
    /** There is nothing more for now. */
    settled(): void
    /** It is not to be used any more. */
    stopped(): void
    /** It is of no further use. Names the document on which it trapped, if that is known. */
    trapped(document: string | undefined, error: unknown): void
}

/** Somebody's call that is not answered yet. */
interface Waiting {
    readonly check: () => boolean
    readonly resolve: () => void
    readonly reject: (error: unknown) => void
}

/** Those of this thread: they share the instance of the module, and so its end. */
const engines = new Set<Engine>()

export class Engine {
    readonly client: Client
    #events: EngineEvents
    #waiting = new Set<Waiting>()
    #timer: ReturnType<typeof setTimeout> | undefined
    #polling = false
    #isStopped = false
    /** The document that it was asked to work on last, to be named if it traps. */
    #current: string | undefined

    constructor(client: Client, events: EngineEvents) {
        this.client = this.#watched(client)
        this.#events = events
        engines.add(this)
    }

    get isStopped(): boolean {
        return this.#isStopped
    }

    /** Does something with the engine, and what follows from it. */
    run<T>(action: () => T): T | undefined {
        if (this.#isStopped) return undefined
        const result = action()
        this.#poll()
        return result
    }

    /** What nobody waits for: if the engine traps, that is told already. */
    heed(action: () => void): void {
        try {
            this.run(action)
        } catch (error) {
            if (!(error instanceof EngineError)) throw error
        }
    }

    /** Does something with the engine of which a result is expected. */
    must<T>(action: () => T): T {
        const done = this.run(() => ({ result: action() }))
        if (done === undefined) throw new CallError("closed", SHUT_DOWN)
        return done.result
    }

    /** What is done next is about this document, also where it does not name it. */
    about(document: string): void {
        this.#current = document
    }

    /** Waits until `check` says so, which is asked after everything that happens. */
    until(check: () => boolean, signal?: AbortSignal): Promise<void> {
        return new Promise((resolve, reject) => {
            const end = (): void => {
                this.#waiting.delete(waiting)
                signal?.removeEventListener("abort", abort)
            }
            const abort = (): void => waiting.reject(new CallError("failed", UNWANTED))
            const waiting: Waiting = {
                check: () => {
                    try {
                        return check()
                    } catch (error) {
                        waiting.reject(error)
                        return false
                    }
                },
                resolve: () => (end(), resolve()),
                reject: (error) => (end(), reject(error)),
            }
            signal?.addEventListener("abort", abort)
            this.#waiting.add(waiting)
            if (waiting.check()) waiting.resolve()
        })
    }

    /** Whoever still waits is told why that is in vain. */
    giveUp(error: unknown): void {
        for (const waiting of this.#waiting) waiting.reject(error)
    }

    stop(): void {
        this.#isStopped = true
        engines.delete(this)
        clearTimeout(this.#timer)
        this.#events.stopped()
    }

    #watched(client: Client): Client {
        return new Proxy(client, {
            get: (target, name) => {
                const value: unknown = Reflect.get(target, name, target)
                if (typeof value !== "function") return value
                return (...args: unknown[]): unknown => {
                    if (this.#isStopped) throw new EngineError("the document engine has ended")
                    const document = args.slice(0, 2).find((arg) => typeof arg === "string")
                    if (document !== undefined) this.#current = document as string
                    else if (name === "frame") this.#current = documentIn(args[2] as Uint8Array)
                    try {
                        return value.apply(target, args) as unknown
                    } catch (error) {
                        if (!isTrap(error)) throw error
                        throw this.#trapped(error)
                    }
                }
            },
        })
    }

    /**
     * Ends all engines of this thread, whose clients are in the memory that is of no use now. What was
     * asked of them and is not answered is asked of the next ones, except the call that trapped.
     */
    #trapped(error: unknown): EngineError {
        const document = this.#current
        const ended = [...engines]
        for (const engine of ended) engine.stop()
        // No call gets through to a client of the old instance any more.
        renewInstance()
        // The call's answer goes first.
        setTimeout(() => {
            for (const engine of ended) engine.#events.trapped(engine === this ? document : undefined, error)
        })
        return new EngineError("the document engine failed, and starts anew")
    }

    #poll(): void {
        if (this.#polling) return
        this.#polling = true
        try {
            for (;;) {
                const output = this.client.poll(now()) as Output
                this.#current = "document" in output ? output.document : undefined
                if (output.type === "idle") {
                    this.#wakeAt(output.wakeAt)
                    break
                }
                this.#events.output(output)
            }
        } finally {
            this.#polling = false
        }
        for (const waiting of [...this.#waiting]) if (waiting.check()) waiting.resolve()
        this.#events.settled()
    }

    #wakeAt(at: number | undefined): void {
        clearTimeout(this.#timer)
        if (at === undefined || this.#isStopped) return
        const wait = Math.min(Math.max(at - now(), 0), 2 ** 31 - 1)
        this.#timer = setTimeout(() => this.heed(() => this.client.tick(now())), wait)
    }
}

/** The engine's clock, in milliseconds. */
export function now(): number {
    return performance.now()
}

/** What ends an instance of the module: a trap, or a stack that is too small. */
export function isTrap(error: unknown): boolean {
    if (error instanceof WebAssembly.RuntimeError) return true
    return error instanceof Error && /call stack|too much recursion/.test(error.message)
}

/** The document that a frame names, found without decoding the frame: a text behind its key. */
function documentIn(frame: Uint8Array): string | undefined {
    const key = encode("jdocumentId")
    const starts = (at: number): boolean => key.every((byte, i) => frame[at + i] === byte)
    for (let at = frame.indexOf(key[0]!); at >= 0; at = frame.indexOf(key[0]!, at + 1)) {
        if (!starts(at)) continue
        let from = at + key.length
        const head = frame[from++] ?? 0
        const length = head === 0x78 ? (frame[from++] ?? 0) : head - 0x60
        return documentId(decode(frame.subarray(from, from + length)))
    }
    return undefined
}
