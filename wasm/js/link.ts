// A page's way to its host, whichever that is at the time.

import type { CallName, Calls, Failure, HostMessage, HostOptions, PageMessage, Port } from "./host/protocol.js"
import { channelPort, commonChannel, hostLock, pageLock, type Announcement } from "./host/serve.js"
import { startHost, type Platform, type Running } from "./start.js"
import type { Storage } from "./storage.js"
import type { FailureCode } from "./types.js"

/** What could not be done. `code` tells the reasons apart; the message is for people. */
export class RepoError extends Error {
    /** So that it is told apart where `instanceof` is of no use. */
    override readonly name = "RepoError"

    /** Made by the repo. */
    constructor(
        /** The reason. */
        readonly code: FailureCode,
        message: string,
    ) {
        super(message)
    }
}

/** @internal */
export interface LinkEvents {
    message(message: HostMessage): void
    /**
     * A host is there, and knows nothing of this page yet. Called again for each next one. It is told
     * at once of what was said before this word; what is given is said after that, in its order among
     * the calls that are not answered.
     */
    connected(before: number): Said[]
    trapped(document: string | undefined, message: string): void
    failed(error: Error): void
}

/** @internal A page's word, and its place among all that the page said. */
export interface Said {
    readonly word: number
    say(): void
}

interface Pending {
    readonly name: CallName
    readonly args: readonly unknown[]
    readonly settle: (value: unknown, failure?: Failure) => void
    readonly signal: AbortSignal | undefined
}

/** An engine that trapped more often than this in so short a time is left alone. */
const TRAPS_MAX = 10
const TRAPS_MS = 60_000

/** @internal */
export class Link {
    #platform: Platform
    #options: HostOptions
    #storage: Storage | undefined
    #events: LinkEvents
    #port: Port<PageMessage, HostMessage> | undefined
    #calls = new Map<number, Pending>()
    #words = 0
    #running: Running | undefined
    /** This tab is the host's, or about to be. */
    #isLeading = false
    /** Documents at which the engine trapped, and when it did. */
    #avoid: string[] = []
    #traps: number[] = []
    /** Why there will be no host any more. */
    #failure: Failure | undefined
    #closed = new AbortController()
    #common: BroadcastChannel | undefined
    #releaseLocks: () => void = () => {}

    constructor(platform: Platform, options: HostOptions, storage: Storage | undefined, events: LinkEvents) {
        this.#platform = platform
        this.#options = options
        this.#storage = storage
        this.#events = events
    }

    /** Starts the host, or finds it. Resolves when there is one. */
    open(): Promise<void> {
        const { keeps, name, peerId } = this.#options
        if (!keeps || this.#storage !== undefined) return this.#start()
        const held = new Promise<void>((release) => (this.#releaseLocks = release))
        return new Promise((resolve, reject) => {
            const connected = this.#events.connected
            this.#events.connected = (before) => {
                resolve()
                return connected(before)
            }
            const { signal } = this.#closed
            const locks = navigator.locks
            const lead = async (): Promise<void> => {
                this.#isLeading = true
                this.#leave()
                try {
                    await this.#start()
                } catch (error) {
                    // The next tab may have more luck.
                    reject(error)
                    return
                }
                await held
            }
            const alive = locks.request(pageLock(name, peerId), { signal }, () => {
                this.#follow()
                return held
            })
            alive.catch(() => {})
            locks.request(hostLock(name), { signal }, lead).catch(() => {})
        })
    }

    post(message: PageMessage): void {
        this.#port?.post(message)
    }

    /** Counts what the page says. A host hears all that concerns its documents in this order. */
    nextWord(): number {
        return ++this.#words
    }

    /**
     * Asks the host. If it ends before it answered, the next one is asked. `then` runs at once when
     * the answer comes, before any message after it; also if the call was aborted too late.
     */
    call<N extends CallName, R = Calls[N][1]>(
        name: N,
        args: Calls[N][0],
        { signal, then }: { signal?: AbortSignal | undefined; then?: (value: Calls[N][1]) => R } = {},
    ): Promise<R> {
        return new Promise((resolve, reject) => {
            if (this.#closed.signal.aborted) throw new RepoError("closed", "the repo was shut down")
            if (this.#failure) throw new RepoError(this.#failure.code, this.#failure.message)
            signal?.throwIfAborted()
            const call = this.nextWord()
            const abort = (): void => {
                // The answer may be on its way.
                this.post({ type: "cancel", call })
                reject(signal?.reason)
            }
            const settle = (value: unknown, failure?: Failure): void => {
                signal?.removeEventListener("abort", abort)
                this.#calls.delete(call)
                if (failure) return reject(new RepoError(failure.code, failure.message))
                try {
                    resolve(then ? then(value as Calls[N][1]) : (value as R))
                } catch (error) {
                    reject(error)
                }
            }
            signal?.addEventListener("abort", abort)
            this.#calls.set(call, { name, args, settle, signal })
            this.post({ type: "call", call, name, args })
        })
    }

    /** Ends this page's part, and the host if it runs here; another tab goes on then. */
    async close(): Promise<void> {
        if (this.#closed.signal.aborted) return
        this.#closed.abort()
        const failure: Failure = { code: "closed", message: "the repo was shut down" }
        for (const { settle } of [...this.#calls.values()]) settle(undefined, failure)
        if (!this.#running) this.post({ type: "bye" })
        await this.#running?.stop()
        this.#leave()
        this.#port?.close()
        this.#releaseLocks()
    }

    async #start(): Promise<void> {
        const options = { ...this.#options, avoid: this.#avoid }
        const storage = this.#storage ?? this.#running?.memory
        this.#running = await startHost(this.#platform, options, storage, (document, message) => {
            if (this.#closed.signal.aborted) return
            this.#leave()
            this.#events.trapped(document, message)
            if (document !== undefined) this.#avoid = [...new Set([...this.#avoid, document])]
            if (this.#traps.push(Date.now()) > TRAPS_MAX && Date.now() - this.#traps.shift()! < TRAPS_MS) {
                return this.#fail(new Error("the document engine failed again and again, and is not started any more"))
            }
            // What it had is in storage.
            this.#start().catch((error: Error) => this.#fail(error))
        })
        this.#use(this.#running.port)
    }

    /** There will be no host any more. */
    #fail({ message }: Error): void {
        this.#leave()
        this.#failure = { code: "failed", message }
        for (const { settle } of [...this.#calls.values()]) settle(undefined, this.#failure)
        this.#events.failed(new RepoError("failed", message))
    }

    /** Speaks with the host of another tab. */
    #follow(): void {
        if (this.#isLeading || this.#closed.signal.aborted) return
        const { name, peerId } = this.#options
        const common = commonChannel(name)
        this.#common = common
        let port: Port<PageMessage, HostMessage> | undefined
        const hello = (): void => {
            port?.close()
            // What is said before the host listens is lost.
            this.#port = undefined
            const next = channelPort<PageMessage, HostMessage>(name, peerId)
            port = next
            next.onmessage = (message) => {
                if (message.type === "welcome") this.#use(next)
            }
            common.postMessage({ type: "hello", page: peerId } satisfies Announcement)
        }
        common.onmessage = ({ data }) => {
            if ((data as Announcement).type === "host") hello()
        }
        hello()
    }

    #leave(): void {
        this.#common?.close()
        this.#common = undefined
        if (this.#port) this.#port.onmessage = undefined
        this.#port?.close()
        this.#port = undefined
    }

    #use(port: Port<PageMessage, HostMessage>): void {
        this.#port = port
        port.onmessage = (message) => {
            if (message.type === "result") this.#calls.get(message.call)?.settle(message.value, message.failure)
            else if (message.type !== "welcome") this.#events.message(message)
        }
        const calls: Said[] = []
        for (const [call, { name, args, signal }] of this.#calls) {
            // Each host is told anew with what it goes on.
            if (signal?.aborted || name === "resume") this.#calls.delete(call)
            else calls.push({ word: call, say: () => port.post({ type: "call", call, name, args }) })
        }
        const edits = this.#events.connected(calls[0]?.word ?? Infinity)
        for (const { say } of [...calls, ...edits].sort((a, b) => a.word - b.word)) say()
    }
}
