// What a host needs of the runtime in which it is started, and what its page has of it.

import type { HostMessage, PageMessage, Port, Welcome } from "./host/protocol.js"
import type { MakeWebSocket } from "./host/socket.js"
import type { Storage } from "./storage.js"

/** What the entries of the package, one for each kind of runtime, give to the rest of it. */
export interface Platform {
    /** The core's module: its absolute url, its bytes, or compiled; or a promise of these. */
    readonly module: unknown
    readonly webSocket: MakeWebSocket
    /** Storage in a file, where there are files. */
    readonly file?: (path: string) => Storage & { close(): Promise<void> }
    /** The script of the Worker; none where the host runs in the caller's thread. */
    readonly workerSource?: string
}

/** A host that runs, as the page that started it sees it. */
export interface Running {
    readonly port: Port<PageMessage, HostMessage>
    /** Its first word. */
    readonly welcome: Welcome
    /** What the next host must be given, if this one ends by itself. */
    readonly memory?: Storage
    /** Stores what is not stored, and ends the host. */
    stop(): Promise<void>
}

/** Also before a host is there: then it is not waited for any more. */
export type OnTrap = (document: string | undefined, message: string) => void

/**
 * A url that means the same in a Worker from a blob, where nothing is relative to the page. What
 * bundlers put in the place of `new URL(file, import.meta.url)` is not always absolute.
 */
export function absolute(href: string): string {
    if (URL.canParse(href)) return href
    return new URL(href, globalThis.document?.baseURI ?? location.href.replace(/^blob:/, "")).href
}
