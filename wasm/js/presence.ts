/**
 * Who else is in a document, and what they do there: a small state per peer, told to all others and
 * stored nowhere.
 *
 * On the wire this is what automerge-repo's own `Presence` speaks, so both see each other. Ours add
 * fields that it does not read: the tabs of one browser are one peer to the protocol, so a message
 * names its `tab`; and a newcomer `asks`, because automerge-repo answers strangers only, and one who
 * lost a message is no stranger to the others.
 */

import { plain } from "./plain.js"
import type { EphemeralMessage } from "./types.js"

/** What presence needs of a document; every `DocHandle` has it. */
export interface PresenceChannel {
    /** Sends plain data to all who have the document open. */
    broadcast(message: unknown): void
    /** Tells what others sent. */
    on(event: "ephemeral-message", listener: (message: EphemeralMessage) => void): () => void
    /** Tells that it is of no further use, which ends the presence. */
    on(event: "close", listener: () => void): () => void
    /** Tells whether there is a relay. */
    on(event: "connection", listener: (isConnected: boolean) => void): () => void
    /** Tells that another tab has come to run the engine: what was sent meanwhile is lost. */
    on(event: "moved", listener: () => void): () => void
    /** Tells that the page is cut off from the others until somebody comes back to it. */
    on(event: "suspend", listener: () => void): () => void
}

/** How one is present. */
export interface PresenceOptions<S extends object> {
    /** The state that others see first; plain data. */
    state: S
    /** How often others are told that one is still here, when there is nothing else to tell; 15,000 by default. */
    heartbeatMs?: number
    /** After how long a silence a peer is taken to have gone; 45,000 by default. Hidden tabs have longer. */
    expireMs?: number
}

/**
 * Another participant: one tab, or one program. What it says of itself nobody checks: whoever may
 * edit the document can say anything here, also in the name of another tab.
 */
export interface PresencePeer<S extends object> {
    /** The peer as the protocol names it. All tabs of a browser have the same: that of the one that runs the engine. */
    readonly peerId: string
    /** As the peer tells it; nothing checks its shape. */
    readonly state: S
    /** When something was heard of it last, in milliseconds since 1970. It grows in place. */
    readonly lastSeenAt: number
}

/** A presence as others take it: a {@link Presence}, or what a framework's binding keeps of one. */
export interface PresenceHandle<S extends object> {
    /** One's own state. */
    readonly local: S
    /** The others, by a name that tells tabs apart; a new map whenever something in it changed. */
    readonly peers: ReadonlyMap<string, PresencePeer<S>>
    /** Changes some of one's own state, and tells the others. */
    set(changes: Partial<S>): void
    /** Calls `listener` when there is another map of peers; returns what ends that. */
    on(event: "change", listener: () => void): () => void
}

const MARKER = "__presence"
const HEARTBEAT_MS = 15_000
const EXPIRE_MS = 45_000

/** Browsers run the timers of a hidden page about once a minute. */
const EXPIRE_HIDDEN_MS = 150_000

/** The longest that a peer may ask to be remembered for. */
const EXPIRE_MAX_MS = 600_000

/**
 * One who hears nobody asks again after this long, then after twice as long and so on: there may
 * have been no relay yet, and what is broadcast then is heard by other tabs only.
 */
const GREET_AGAIN_MS = 500

/** Answers wait up to this long, so that several who ask get one. */
const ANSWER_MS = 100

/** Changes that follow sooner upon each other than this are told together. */
const TELL_MS = 40

/** Those beyond are not listed: a peer may call itself by any number of names. */
const PEERS_MAX = 1_000

type Message = { tab?: unknown; asks?: unknown; expireMs?: unknown } & (
    | { type: "snapshot"; state: unknown }
    | { type: "update"; channel: unknown; value: unknown }
    | { type: "heartbeat" }
    | { type: "goodbye" }
)

interface Known<S extends object> extends PresencePeer<S> {
    lastSeenAt: number
    /** Undefined for automerge-repo's own. */
    readonly tab: string | undefined
    expireMs: number
}

/**
 * Tells one's own state to all who have the document open, and knows theirs. It begins when it is
 * made and ends with {@link Presence.stop}, or when the page goes.
 */
export class Presence<S extends object> {
    readonly #handle: PresenceChannel
    readonly #heartbeatMs: number
    readonly #expireMs: number
    readonly #tab = randomName()
    readonly #listeners = new Set<() => void>()
    readonly #ending: (() => void)[] = []

    #local: S
    #peers = new Map<string, Known<S>>()
    #here = false
    #toldAt = 0
    #untold = new Set<keyof S>()
    #telling: ReturnType<typeof setTimeout> | undefined
    #answering: ReturnType<typeof setTimeout> | undefined
    #greeting: ReturnType<typeof setTimeout> | undefined
    #beating: ReturnType<typeof setInterval> | undefined

    /**
     * Says hello at once.
     *
     * @throws what `broadcast` throws for a state that is no plain data.
     */
    constructor(handle: PresenceChannel, options: PresenceOptions<S>) {
        // Of what is no object there is no key to change.
        if (!isObject(options?.state)) throw new TypeError("presence has a state, which is an object")
        plain(options.state)
        this.#handle = handle
        this.#local = options.state
        this.#heartbeatMs = options.heartbeatMs ?? HEARTBEAT_MS
        this.#expireMs = options.expireMs ?? EXPIRE_MS

        this.#ending.push(handle.on("ephemeral-message", ({ senderId, message }) => this.#hear(senderId, message)))
        this.#ending.push(handle.on("close", () => this.stop()))
        // What was told while there was no relay reached nobody.
        this.#ending.push(handle.on("connection", (isConnected) => isConnected && this.#arrive()))
        this.#ending.push(handle.on("moved", () => this.#here && this.#arrive()))
        // A repo says so before it lets go of what tells the others.
        this.#ending.push(handle.on("suspend", () => this.#leave()))
        if (typeof window !== "undefined") {
            this.#whenever(window, "pagehide", () => this.#leave())
            this.#whenever(window, "pageshow", () => this.#here || this.#arrive())
            this.#whenever(document, "visibilitychange", () => this.#tellVisibility())
        }
        this.#beating = setInterval(() => this.#beat(), this.#heartbeatMs)
        this.#arrive()
    }

    /** One's own state. */
    get local(): S {
        return this.#local
    }

    /** The others, by a name that tells tabs apart; a new map whenever something in it changed. */
    get peers(): ReadonlyMap<string, PresencePeer<S>> {
        return this.#peers
    }

    /**
     * Changes some of one's own state and tells the others, within 40 ms.
     *
     * @throws what `broadcast` throws for what is no plain data; nothing is changed then.
     */
    set(changes: Partial<S>): void {
        plain(changes)
        const next = { ...this.#local, ...changes }
        const changed = (Object.keys(changes) as (keyof S)[]).filter((key) => !Object.is(next[key], this.#local[key]))
        if (changed.length === 0) return
        this.#local = next
        for (const key of changed) this.#untold.add(key)
        if (!this.#here || this.#telling !== undefined) return
        const wait = this.#toldAt + TELL_MS - Date.now()
        if (wait <= 0) this.#tellChanges()
        else this.#telling = setTimeout(() => this.#tellChanges(), wait)
    }

    /** Calls `listener` when {@link Presence.peers} is another map; returns what ends that. */
    on(event: "change", listener: () => void): () => void {
        if (event !== "change") throw new TypeError(`presence has no event "${String(event)}"`)
        this.#listeners.add(listener)
        return () => void this.#listeners.delete(listener)
    }

    /** @internal Vue's `reactive` leaves it as it is: private fields are not there for its proxies. */
    get __v_skip(): true {
        return true
    }

    /** Says goodbye and forgets the others. */
    stop(): void {
        if (this.#beating === undefined) return
        this.#leave()
        clearInterval(this.#beating)
        this.#beating = undefined
        for (const end of this.#ending.splice(0)) end()
        this.#listeners.clear()
    }

    #whenever(target: EventTarget, event: string, listener: () => void): void {
        target.addEventListener(event, listener)
        this.#ending.push(() => target.removeEventListener(event, listener))
    }

    #arrive(): void {
        this.#here = true
        this.#tellAll(true)
        this.#greetAfter(GREET_AGAIN_MS)
    }

    #greetAfter(ms: number): void {
        clearTimeout(this.#greeting)
        if (ms >= this.#heartbeatMs) return
        this.#greeting = setTimeout(() => {
            if (this.#peers.size > 0) return
            this.#tellAll(true)
            this.#greetAfter(ms * 2)
        }, ms)
    }

    #leave(): void {
        if (!this.#here) return
        this.#send({ type: "goodbye" })
        this.#here = false
        clearTimeout(this.#greeting)
        clearTimeout(this.#telling)
        clearTimeout(this.#answering)
        this.#telling = this.#answering = undefined
        if (this.#peers.size > 0) this.#become(new Map())
    }

    #tellAll(asks: boolean): void {
        clearTimeout(this.#telling)
        clearTimeout(this.#answering)
        this.#telling = this.#answering = undefined
        this.#untold.clear()
        this.#send({ type: "snapshot", state: this.#local, ...(asks && { asks }) })
    }

    #tellChanges(): void {
        this.#telling = undefined
        // A message names one key; of several, others would see states that never were.
        const [channel, second] = this.#untold
        if (channel === undefined) return
        if (second !== undefined) return this.#tellAll(false)
        this.#untold.clear()
        this.#send({ type: "update", channel, value: this.#local[channel] })
    }

    #tellVisibility(): void {
        if (!this.#here) return
        const slept = Date.now() - this.#toldAt > this.#heartbeatMs * 1.5
        if (document.visibilityState === "visible" && slept) this.#arrive()
        else this.#send({ type: "heartbeat" })
    }

    #answer(withinMs: number): void {
        this.#answering ??= setTimeout(() => this.#tellAll(false), Math.random() * withinMs)
    }

    #beat(): void {
        const now = Date.now()
        const left = [...this.#peers].filter(([, peer]) => now - peer.lastSeenAt <= peer.expireMs)
        if (left.length < this.#peers.size) this.#become(new Map(left))
        if (this.#here && now - this.#toldAt >= this.#heartbeatMs / 2) this.#send({ type: "heartbeat" })
    }

    #send(message: object): void {
        this.#toldAt = Date.now()
        const hidden = typeof document !== "undefined" && document.visibilityState === "hidden"
        const expireMs = Math.max(EXPIRE_HIDDEN_MS, this.#expireMs)
        const fields = { ...message, tab: this.#tab, ...(hidden && { expireMs }) }
        this.#handle.broadcast({ [MARKER]: fields })
    }

    #hear(peerId: string, envelope: unknown): void {
        const message = messageIn(envelope)
        if (message === undefined || !this.#here) return
        const tab = typeof message.tab === "string" ? message.tab.slice(0, 64) : undefined
        if (tab === this.#tab) return
        // When another tab comes to run the engine, all tabs of the browser are called otherwise by the
        // protocol, and are who they were.
        const name = tab === undefined ? peerId : `/${tab}`
        if (message.type === "goodbye") return this.#forget(name, tab)

        const known = this.#peers.get(name)
        if (known === undefined || message.asks === true) this.#answer(ANSWER_MS)
        if (known === undefined && this.#peers.size >= PEERS_MAX) return
        const asked = typeof message.expireMs === "number" ? message.expireMs : 0
        const expireMs = Math.max(this.#expireMs, Math.min(asked, EXPIRE_MAX_MS))
        const learn = (state: object): void => {
            const peer = { peerId, state: state as S, lastSeenAt: Date.now(), tab, expireMs }
            this.#become(new Map(this.#peers).set(name, peer))
        }
        switch (message.type) {
            case "heartbeat":
                if (known && known.peerId !== peerId) {
                    learn(known.state)
                } else if (known) {
                    known.lastSeenAt = Date.now()
                    known.expireMs = expireMs
                } else if (tab !== undefined) {
                    this.#ask()
                }
                return
            case "snapshot":
                if (isObject(message.state)) learn(message.state)
                return
            case "update":
                if (typeof message.channel !== "string") return
                // Ours answer with all of their state; of automerge-repo's there will be no more.
                if (known === undefined && tab !== undefined) return this.#ask()
                learn({ ...known?.state, [message.channel]: message.value })
        }
    }

    #ask(): void {
        // Instead of the answer that may be waiting: this tells as much.
        clearTimeout(this.#answering)
        this.#answering = setTimeout(() => this.#tellAll(true), Math.random() * ANSWER_MS)
    }

    #forget(name: string, tab: string | undefined): void {
        // To automerge-repo, a goodbye is that of all tabs of a browser, and this may be one of them.
        const heardByOthers = [...this.#peers.values()].some((peer) => peer.tab === undefined)
        if (tab !== undefined && heardByOthers) this.#answer(this.#heartbeatMs / 10)
        const peers = new Map(this.#peers)
        if (peers.delete(name)) this.#become(peers)
    }

    #become(peers: Map<string, Known<S>>): void {
        this.#peers = peers
        for (const listener of [...this.#listeners]) listener()
    }
}

function messageIn(envelope: unknown): Message | undefined {
    if (!isObject(envelope) || !Object.hasOwn(envelope, MARKER)) return undefined
    const message = (envelope as Record<string, unknown>)[MARKER]
    return isObject(message) ? (message as Message) : undefined
}

function isObject(value: unknown): value is object {
    return typeof value === "object" && value !== null && !Array.isArray(value)
}

function randomName(): string {
    const bytes = crypto.getRandomValues(new Uint8Array(9))
    return btoa(String.fromCharCode(...bytes))
        .replace(/\+/g, "-")
        .replace(/\//g, "_")
}
