// The connections to relays: they are made when the engine asks for them, with the newest token that
// a page gives, and end when it says so or somebody wants to be offline.

import type { ConnectionStatus } from "../types.js"
import { now, type Engine } from "./engine.js"
import type { Pages } from "./page.js"
import { words, type HostMessage } from "./protocol.js"
import { Renewals } from "./renewals.js"
import { Socket, type MakeWebSocket } from "./socket.js"
import type { Found, Wanted } from "./wanted.js"

/** A connection, from when it is asked for. */
interface Line {
    readonly relay: string
    /** That it was made with. */
    token?: string
    socket?: Socket
}

export class Connections {
    #engine: Engine
    #pages: Pages
    #wanted: Wanted
    #webSocket: MakeWebSocket
    #lines = new Map<number, Line>()
    /** Those that the engine has, in its order. */
    #relays: readonly string[] = []
    /** Of those that somebody wants. */
    #statuses = new Map<string, ConnectionStatus>()
    /** Relays that refused, and may let us in with another token. */
    #renewals = new Renewals((relay) => void this.retry(relay))
    #online: boolean
    /** Connections that were asked for while there should be none. */
    #withheld: number[] = []

    constructor(engine: Engine, pages: Pages, wanted: Wanted, webSocket: MakeWebSocket, online: boolean) {
        this.#engine = engine
        this.#pages = pages
        this.#wanted = wanted
        this.#webSocket = webSocket
        this.#online = online
    }

    /** The engine has these relays from now on, in this order. Only those that are `wanted` are connected. */
    use(wanted: readonly string[], away: readonly string[]): void {
        this.#relays = [...wanted, ...away]
        const before = this.#statuses
        this.#statuses = new Map(wanted.map((relay) => [relay, before.get(relay) ?? { relay, state: "connecting" }]))
        for (const relay of away) this.#renewals.forget(relay)
    }

    /** Those that somebody wants. */
    get relays(): string[] {
        return [...this.#statuses.keys()]
    }

    /** Whether there may be connections. */
    get isOnline(): boolean {
        return this.#online
    }

    /** Whether one is about to be made. */
    get isConnecting(): boolean {
        return [...this.#statuses.values()].some(({ state }) => state === "connecting")
    }

    get message(): HostMessage {
        return { type: "relays", connections: [...this.#statuses.values()], online: this.#online }
    }

    socket(connection: number): Socket | undefined {
        return this.#lines.get(connection)?.socket
    }

    /** The engine asks for a connection to the relay that is at this place in its order. */
    connect(place: number, connection: number): void {
        const relay = this.#relays[place] ?? ""
        if (!this.#online) {
            this.#withheld.push(connection)
            return
        }
        const line: Line = { relay }
        this.#lines.set(connection, line)
        this.#tell({ relay, state: "connecting" })
        const { client } = this.#engine
        const isConnected = (): boolean => this.#statuses.get(relay)?.state === "connected"
        const end = (status: ConnectionStatus): void => {
            if (this.#lines.get(connection) !== line) return
            this.#lines.delete(connection)
            this.#tell(status)
            const refused = status.state === "refused" ? status.reason : undefined
            this.#engine.heed(() => client.closed(now(), connection, refused))
            if (refused !== undefined) this.#renewals.renew(relay)
        }
        const dial = ({ token, reason }: Found): void => {
            if (this.#lines.get(connection) !== line) return
            if (token === undefined) return end(refusal(relay, reason ?? ""))
            line.token = token
            line.socket = new Socket(this.#webSocket, relay, token, {
                opened: () => this.#engine.heed(() => client.connected(now(), connection)),
                message: (bytes) => {
                    this.#engine.heed(() => client.frame(now(), connection, bytes))
                    // The word may be that it does not want us.
                    if (this.#lines.get(connection) !== line || isConnected()) return
                    this.#renewals.forget(relay)
                    this.#tell({ relay, state: "connected" })
                },
                closed: (refused, isMild) => {
                    if (refused !== undefined && !isMild) this.#wanted.refuse(relay, token, refused)
                    if (isConnected()) this.#renewals.putOut(relay)
                    end(refusal(relay, refused))
                },
            })
        }
        const fail = (error: unknown): void => end({ relay, state: "offline", reason: words(error) })
        this.#wanted.find(relay).then(dial).catch(fail)
    }

    disconnect(connection: number): void {
        this.#withheld = this.#withheld.filter((other) => other !== connection)
        const line = this.#lines.get(connection)
        if (line === undefined) return
        line.socket?.close()
        this.#lines.delete(connection)
        const { relay, token } = line
        // It may have answered so, instead of letting us in.
        const reason = this.#engine.client.refusal(this.#relays.indexOf(relay))
        this.#tell(refusal(relay, reason))
        if (reason === undefined) return
        if (token !== undefined) this.#wanted.refuse(relay, token, reason)
        this.#renewals.renew(relay)
    }

    /** Tries a relay at once that is not connected, if there is a token that it did not refuse. */
    async retry(relay: string): Promise<void> {
        const isTried = (): boolean => [...this.#lines.values()].some((line) => line.relay === relay)
        const isVain = (): boolean => this.#engine.isStopped || !this.#online || isTried() || !this.#statuses.has(relay)
        if (isVain()) return
        const found = await this.#wanted.find(relay).catch((): Found => ({}))
        if (isVain()) return
        const { token } = found
        if (token === undefined) return this.#wanted.isAsked(relay) ? this.#renewals.renew(relay) : undefined
        const retry = (): void => this.#engine.client.retry(now(), this.#relays.indexOf(relay))
        this.#wanted.using(relay, token, () => this.#engine.heed(retry))
    }

    /** There may be a network again, or somebody looks at a page again. */
    wake(isOtherNetwork = false): void {
        if (!this.#online) return
        // What went over the old network may be dead without anybody noticing.
        if (isOtherNetwork) this.#loseAll()
        this.#engine.heed(() => this.#engine.client.networkAvailable(now()))
        for (const relay of this.#renewals.relays) void this.retry(relay)
    }

    setOnline(online: boolean): void {
        if (online === this.#online) return
        this.#online = online
        this.#pages.tell(this.message)
        if (!online) return this.#loseAll()
        // The engine would wait for them until it gives them up.
        for (const connection of this.#withheld.splice(0)) {
            this.#engine.run(() => this.#engine.client.closed(now(), connection))
        }
        this.wake()
    }

    #loseAll(): void {
        for (const connection of [...this.#lines.keys()]) {
            this.disconnect(connection)
            this.#engine.run(() => this.#engine.client.closed(now(), connection))
        }
    }

    #tell(connection: ConnectionStatus): void {
        // One that is gone is not told of any more.
        if (!this.#statuses.has(connection.relay)) return
        this.#statuses.set(connection.relay, connection)
        this.#pages.tell({ type: "connection", connection })
    }

    stop(): void {
        this.#renewals.stop()
        for (const { socket } of this.#lines.values()) socket?.close()
        this.#lines.clear()
    }
}

function refusal(relay: string, reason: string | undefined): ConnectionStatus {
    return reason === undefined ? { relay, state: "offline" } : { relay, state: "refused", reason }
}
