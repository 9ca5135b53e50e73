// A page's way to its host, whichever that is at the time.

import {
    words,
    type CallName,
    type Calls,
    type Failure,
    type HostMessage,
    type HostOptions,
    type PageMessage,
    type Port,
    type Welcome,
} from "./host/protocol.js"
import { channelPort, commonChannel, hostLock, pageLock, type Announcement } from "./host/serve.js"
import { hex } from "./names.js"
import type { Platform, Running } from "./platform.js"
import { startHost } from "./start.js"
import type { Storage } from "./storage.js"
import type { AutomergeUrl, FailureCode } from "./types.js"

/** What could not be done. `code` tells the reasons apart; the message is for people. */
export class RepoError extends Error {
    /** So that it is told apart where `instanceof` is of no use. */
    override readonly name = "RepoError"

    /** Made by the repo. */
    constructor(
        /** The reason. */
        readonly code: FailureCode,
        message: string,
        /** The documents that it is about, where it may be about several. */
        readonly urls: readonly AutomergeUrl[] = [],
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
    /** All was wiped since there was a host. */
    wiped(): void
    trapped(document: string | undefined, message: string): void
    /** There is no host, and this tab cannot start one; it tries again. */
    unserved(error: Error): void
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

/** Before a tab tries again to start a host, or earlier: that doubles each time, up to the second. */
const PAUSE_MS_MIN = 250
const PAUSE_MS_MAX = 30_000

/** Calls that may go on after a wipe; all others are about what is gone. */
const LASTING = "create open import export delete flush documents online resume".split(" ")

const UNSERVED = "the document engine cannot be started in this tab, which tries again"

/** The time in which a page has its locks, or waits for them. */
class Membership {
    #waits = new AbortController()
    #kill = new AbortController()
    /** Locks are held until then. */
    readonly over: Promise<void>
    readonly end: () => void

    constructor() {
        let end = (): void => {}
        this.over = new Promise((resolve) => (end = resolve))
        this.end = end
    }

    /** Nothing is begun any more. */
    get signal(): AbortSignal {
        return this.#waits.signal
    }

    /** A Worker is ended without a word. */
    get killed(): AbortSignal {
        return this.#kill.signal
    }

    abort(): void {
        this.#waits.abort()
    }

    kill(): void {
        this.#waits.abort()
        this.#kill.abort()
        this.end()
    }
}

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
    /** Names this page among those that share a database, and no other ever. */
    readonly page = hex()
    /** This tab is the host's, or about to be. */
    #isLeading = false
    /** What the next host goes on with, where documents are in memory only. */
    #memory: Storage | undefined
    /** Before the next try to start a host; none while there is one. */
    #pauseMs = 0
    /** The last wipe that this page heard of; null before it heard of any host. */
    #wiped: string | undefined | null = null
    /** Ends that. */
    #hurry: () => void = () => {}
    /** Documents at which the engine trapped, and when it did. */
    #avoid: string[] = []
    #traps: number[] = []
    /** Why there will be no host any more. */
    #failure: Failure | undefined
    #closed = false
    #common: BroadcastChannel | undefined
    /** Where the host of another tab answers the last hello. */
    #greeting: Port<PageMessage, HostMessage> | undefined
    #hellos = 0
    /** Whoever waits for the first host is told that there is none; afterwards nobody hears it. */
    #unopened: (error: unknown) => void = () => {}
    /** What this page takes part in, until it is closed or suspended. */
    #membership = new Membership()
    /** It is not the host's any more after that. */
    #led: Promise<void> = Promise.resolve()

    constructor(platform: Platform, options: HostOptions, storage: Storage | undefined, events: LinkEvents) {
        this.#platform = platform
        this.#options = options
        this.#storage = storage
        this.#events = events
    }

    /** Starts the host, or finds it. Resolves when there is one. */
    open(): Promise<void> {
        return new Promise((resolve, reject) => {
            const connected = this.#events.connected
            this.#events.connected = (before) => {
                resolve()
                return connected(before)
            }
            this.#unopened = reject
            this.#join()
        })
    }

    get name(): string {
        return this.#options.name
    }

    /** Names the last wipe, if there was one. */
    get wiped(): string | undefined {
        return this.#wiped ?? undefined
    }

    /** All tabs have the same documents. */
    get isShared(): boolean {
        return this.#options.keeps && this.#storage === undefined
    }

    #join(): void {
        const membership = (this.#membership = new Membership())
        if (!this.isShared) return void this.#lead(membership, (serve) => serve())
        const { signal } = membership
        const { name } = this.#options
        const before = this.#led
        const alive = navigator.locks.request(pageLock(name, this.page), { signal }, async () => {
            await before
            if (!signal.aborted) this.#follow()
            return membership.over
        })
        alive.catch((error: unknown) => this.#unopened(error))
        this.#led = this.#lead(membership, (serve) => navigator.locks.request(hostLock(name), { signal }, serve))
    }

    /**
     * The browser keeps this page as it is, for going back to it. Whatever it holds, the others would
     * wait for, so its host ends at once.
     */
    suspend(): void {
        if (!this.isShared || this.#closed) return
        this.#membership.kill()
        this.#running = undefined
        this.#leave()
        this.#hurry()
    }

    /** Somebody came back to the page. */
    goOn(): void {
        if (this.#membership.signal.aborted && !this.#closed && !this.#failure) this.#join()
    }

    post(message: PageMessage): void {
        this.#port?.post(message)
    }

    /** Somebody looks at the page, or there is a network again. */
    wake(isOtherNetwork: boolean): void {
        this.#hurry()
        this.post({ type: "wake", isOtherNetwork })
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
            if (this.#closed) throw new RepoError("closed", "the repo was shut down")
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
        if (this.#closed) return
        this.#closed = true
        this.#membership.abort()
        this.#failAll({ code: "closed", message: "the repo was shut down" })
        if (!this.#running) this.post({ type: "bye" })
        this.#hurry()
        await this.#running?.stop()
        this.#leave()
        this.#membership.end()
    }

    /**
     * Runs hosts here, whenever it is this tab's turn. If one cannot be started, another tab may have
     * more luck: it is let try, and this one waits for its next turn.
     */
    async #lead(membership: Membership, turn: (serve: () => Promise<void>) => Promise<void>): Promise<void> {
        let failure: unknown
        const serve = async (): Promise<void> => {
            this.#isLeading = true
            try {
                failure = undefined
                while (await this.#serve(membership));
            } catch (error) {
                failure = error
            }
            this.#isLeading = false
        }
        for (;;) {
            await turn(serve).catch((error: unknown) => (failure = error))
            if (membership.signal.aborted) return
            if (this.#failure) return this.#unopened(new RepoError(this.#failure.code, this.#failure.message))
            if (failure === undefined) return
            this.#unopened(failure)
            if (this.#pauseMs === 0) this.#events.unserved(new RepoError("failed", `${UNSERVED}: ${words(failure)}`))
            if (this.isShared) this.#follow()
            this.#pauseMs = Math.min(Math.max(2 * this.#pauseMs, PAUSE_MS_MIN), PAUSE_MS_MAX)
            await new Promise<void>((resume) => {
                this.#hurry = resume
                setTimeout(resume, Math.random() * this.#pauseMs)
            })
        }
    }

    /** Starts a host, and resolves when it ended: to true if the next one is to be started. */
    async #serve(membership: Membership): Promise<boolean> {
        this.#leave()
        const options = { ...this.#options, avoid: this.#avoid }
        const storage = this.#storage ?? this.#memory
        let isTrapped = false
        let trap = (_: boolean): void => {}
        const trapped = new Promise<boolean>((resolve) => (trap = resolve))
        const onTrap = (document: string | undefined, message: string): void => {
            isTrapped = true
            trap(!membership.signal.aborted && this.#trapped(document, message))
        }
        const starting = startHost(this.#platform, options, storage, membership.killed, onTrap)
        const running = await starting.catch((error: unknown) => {
            if (!isTrapped) throw error
        })
        if (running === undefined) return trapped
        if (membership.signal.aborted) {
            await running.stop()
            return false
        }
        this.#running = running
        this.#memory = running.memory
        this.#use(running.port, running.welcome)
        const isNext = await Promise.race([trapped, membership.over.then(() => false)])
        if (membership.killed.aborted) await running.stop()
        return isNext
    }

    /** Whether a next host is to be started, out of what the last one stored. */
    #trapped(document: string | undefined, message: string): boolean {
        this.#running = undefined
        this.#leave()
        this.#events.trapped(document, message)
        if (document !== undefined) this.#avoid = [...new Set([...this.#avoid, document])]
        const isLast = this.#traps.push(Date.now()) > TRAPS_MAX && Date.now() - this.#traps.shift()! < TRAPS_MS
        if (!isLast) return true
        const why = "the document engine failed again and again, and is not started any more"
        this.#failure = { code: "failed", message: why }
        this.#failAll(this.#failure)
        this.#events.failed(new RepoError("failed", why))
        return false
    }

    #failAll(failure: Failure): void {
        for (const { settle } of [...this.#calls.values()]) settle(undefined, failure)
    }

    /** Speaks with the host of another tab. */
    #follow(): void {
        if (this.#isLeading || this.#common || this.#membership.signal.aborted) return
        const { name, relays, token, at } = this.#options
        const wishes = { relays, at, ...(token !== undefined && { token }) }
        const common = commonChannel(name)
        this.#common = common
        const hello = (): void => {
            this.#greeting?.close()
            // What is said before the host listens is lost.
            this.#port = undefined
            // One of its own, on which nothing is heard of what was said to an earlier hello.
            const channel = `${this.page}:${++this.#hellos}`
            const port = channelPort<PageMessage, HostMessage>(name, channel)
            this.#greeting = port
            port.onmessage = (message) => {
                if (message.type === "welcome") this.#use(port, message)
            }
            common.postMessage({ type: "hello", page: this.page, channel, wishes } satisfies Announcement)
        }
        common.onmessage = ({ data }) => {
            if ((data as Announcement).type === "host") hello()
        }
        hello()
    }

    #leave(): void {
        this.#common?.close()
        this.#common = undefined
        for (const port of [this.#greeting, this.#port]) {
            if (port) port.onmessage = undefined
            port?.close()
        }
        this.#greeting = this.#port = undefined
    }

    #use(port: Port<PageMessage, HostMessage>, { wiped, unsent }: Welcome): void {
        const isWiped = this.#wiped !== null && wiped !== undefined && wiped !== this.#wiped
        this.#wiped = wiped
        this.#port = port
        this.#pauseMs = 0
        port.onmessage = (message) => {
            if (message.type === "result") this.#calls.get(message.call)?.settle(message.value, message.failure)
            else if (message.type === "welcome") this.#use(port, message)
            else this.#events.message(message)
        }
        // What was said before this page listened is lost.
        port.post({ type: "hello", wiped })
        if (isWiped) {
            // Whoever hears of it may end the repo.
            for (const { name, settle } of [...this.#calls.values()]) {
                if (name === "wipe") settle({ unsent, isWiped })
                else if (!LASTING.includes(name)) settle(undefined, { code: "deleted", message: "all was wiped" })
            }
        }
        const calls: Said[] = []
        for (const [call, { name, args, signal }] of this.#calls) {
            // Each host is told anew with what it goes on.
            if (signal?.aborted || name === "resume") this.#calls.delete(call)
            else
                calls.push({
                    word: call,
                    say: () => this.#calls.has(call) && port.post({ type: "call", call, name, args }),
                })
        }
        if (isWiped) this.#events.wiped()
        const edits = this.#events.connected(calls[0]?.word ?? Infinity)
        for (const { say } of [...calls, ...edits].sort((a, b) => a.word - b.word)) say()
    }
}
