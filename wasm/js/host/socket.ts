// Connections to relays.

/** What a host wants to hear of a connection. */
export interface SocketEvents {
    opened(): void
    message(bytes: Uint8Array): void
    /**
     * It ended, or did not come about. `refused` says why trying again is of no use, at least with this
     * token; if that is not sure, `isMild`.
     */
    closed(refused?: string, isMild?: boolean): void
}

export type MakeWebSocket = (url: string) => WebSocket

/** What may wait in the socket while more is handed to it, in bytes. */
const BUFFERED_MAX = 1024 * 1024

/** How often a socket that is full is looked at; browsers do not tell when it is not any more. */
const LOOK_AGAIN_MS = 20

/** With these a gate closes a connection that it does not want: they are registered, or HTTP's. */
const REFUSING = [3000, 3003, 4401, 4403]

/** A policy is violated: also by who is slow. */
const VIOLATION = 1008

export class Socket {
    #socket: WebSocket
    #ended = false
    #opened = false
    #unsent: (() => void)[] = []
    #timer: ReturnType<typeof setTimeout> | undefined

    constructor(make: MakeWebSocket, url: string, token: string, events: SocketEvents) {
        const address = new URL(url)
        // Browsers send no headers with it.
        if (token !== "") address.searchParams.set("token", token)
        this.#socket = make(address.href)
        this.#socket.binaryType = "arraybuffer"
        this.#socket.onopen = () => {
            this.#opened = true
            if (!this.#ended) events.opened()
        }
        let isLetIn = false
        let status: string | undefined
        this.#socket.onmessage = ({ data }: { data: unknown }) => {
            isLetIn = true
            if (!this.#ended && data instanceof ArrayBuffer) events.message(new Uint8Array(data))
        }
        // Browsers do not say with which status a relay answered; the client of Node.js does.
        this.#socket.onerror = (event) => (status = /: (40[13])$/.exec((event as ErrorEvent).message)?.[1])
        this.#socket.onclose = ({ code, reason }) => {
            if (this.#ended) return
            this.close()
            if (!this.#opened) return void whyRefused(address, status).then((refused) => events.closed(refused))
            const isMild = code === VIOLATION && !isLetIn
            events.closed(isMild || REFUSING.includes(code) ? refusal(`${code}`, reason) : undefined, isMild)
        }
    }

    /** Sends a message; `sent` is called when there is room for the next. */
    send(bytes: Uint8Array<ArrayBuffer>, sent: () => void): void {
        if (this.#ended) return
        this.#socket.send(bytes)
        this.#unsent.push(sent)
        this.#drain()
    }

    /** Sends a message whose answer shows that somebody is there. */
    ping(bytes: Uint8Array<ArrayBuffer>): void {
        if (!this.#ended) this.#socket.send(bytes)
    }

    /** Whether nothing that was sent waits here. What waits for long shows that nobody is there. */
    get isFlushed(): boolean {
        return this.#socket.bufferedAmount === 0
    }

    close(): void {
        this.#ended = true
        clearTimeout(this.#timer)
        this.#unsent = []
        this.#socket.close()
    }

    #drain(): void {
        if (this.#ended || this.#timer !== undefined) return
        if (this.#socket.bufferedAmount <= BUFFERED_MAX) {
            for (const sent of this.#unsent.splice(0)) sent()
            return
        }
        this.#timer = setTimeout(() => {
            this.#timer = undefined
            this.#drain()
        }, LOOK_AGAIN_MS)
    }
}

/**
 * Why a relay refuses a connection for good. A WebSocket does not say; asked by plain HTTP, a
 * relay answers with the same status, and in words.
 */
async function whyRefused(address: URL, known: string | undefined): Promise<string | undefined> {
    const refused = known && refusal(`HTTP ${known}`)
    const plain = new URL(address)
    plain.protocol = address.protocol === "wss:" ? "https:" : "http:"
    try {
        const answer = await fetch(plain, { signal: AbortSignal.timeout(5000) })
        const { status } = answer
        // 426: it would take a WebSocket.
        const final = status >= 400 && status < 500 && ![404, 408, 425, 426, 429].includes(status)
        return final ? refusal(`HTTP ${status}`, await answer.text()) : refused
    } catch {
        return refused
    }
}

function refusal(code: string, reason = ""): string {
    const words = reason.trim().slice(0, 256)
    return `the relay refuses the connection (${code})${words && `: ${words}`}`
}
