// Where a host runs: in a Worker if the page may start one, else here.

import type { HostMessage, HostOptions, PageMessage, Port, Welcome } from "./host/protocol.js"
import type { MakeWebSocket } from "./host/socket.js"
import { parts } from "./parts.js"
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

export type ToWorker =
    | { readonly type: "start"; readonly options: HostOptions; readonly module: unknown }
    | { readonly type: "port"; readonly messages: readonly PageMessage[] }
    | { readonly type: "stop" }

export type FromWorker =
    | { readonly type: "failed"; readonly message: string }
    | { readonly type: "port"; readonly message: HostMessage }
    | { readonly type: "trapped"; readonly document: string | undefined; readonly message: string }
    | { readonly type: "stopped" }

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

/**
 * A url that means the same in a Worker from a blob, where nothing is relative to the page. What
 * bundlers put in the place of `new URL(file, import.meta.url)` is not always absolute.
 */
export function absolute(href: string): string {
    if (URL.canParse(href)) return href
    return new URL(href, globalThis.document?.baseURI ?? location.href.replace(/^blob:/, "")).href
}

/** Also before a host is there: then it is not waited for any more. */
export type OnTrap = (document: string | undefined, message: string) => void

/** A stop that takes longer is not waited for: the tab is closing, or the disk hangs. */
const STOP_MS_MAX = 5000

/** A Worker ends at once when it is killed, and nothing that it was about to store is stored. */
export async function startHost(
    platform: Platform,
    options: HostOptions,
    storage: Storage | undefined,
    killed: AbortSignal,
    onTrap: OnTrap,
): Promise<Running> {
    if (platform.workerSource !== undefined && storage === undefined && "Worker" in globalThis) {
        const running = await startWorker(platform.workerSource, platform.module, options, killed, onTrap)
        if (running !== undefined) return running
        console.warn(
            "reconverge: this page may not start a Worker from a blob (see worker-src of its Content-Security-Policy); large documents will block it",
        )
    }
    // Pages that have a Worker need not load this.
    const { startHere } = await import("./here.js")
    return startHere(platform, parts, options, storage, onTrap)
}

/** Undefined if there cannot be a Worker. */
function startWorker(
    source: string,
    module: unknown,
    options: HostOptions,
    killed: AbortSignal,
    onTrap: OnTrap,
): Promise<Running | undefined> {
    return new Promise((resolve, reject) => {
        let url = ""
        let worker: Worker
        try {
            url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }))
            worker = new Worker(url)
        } catch {
            resolve(undefined)
            return
        } finally {
            // It is read when the Worker is made.
            setTimeout(() => URL.revokeObjectURL(url), 10_000)
        }
        const post = (message: ToWorker): void => worker.postMessage(message)
        // To hand a word to another thread takes longer than most edits: all of a task go at its end.
        const said: PageMessage[] = []
        const flush = (): void => {
            if (said.length > 0) post({ type: "port", messages: said.splice(0) })
        }
        const port: Port<PageMessage, HostMessage> = {
            post: (message) => {
                if (message.type !== "call") {
                    if (said.push(message) === 1) queueMicrotask(flush)
                    return
                }
                // What cannot be handed over is the caller's to know.
                flush()
                post({ type: "port", messages: [message] })
            },
            onmessage: undefined,
            close: () => {},
        }
        let stopped = (): void => {}
        const running = {
            port,
            stop: (): Promise<void> =>
                new Promise((done) => {
                    stopped = () => {
                        worker.terminate()
                        done()
                    }
                    if (killed.aborted) return done()
                    setTimeout(stopped, STOP_MS_MAX)
                    flush()
                    post({ type: "stop" })
                }),
        }
        killed.addEventListener("abort", () => {
            worker.terminate()
            reject(new Error("the page was suspended"))
            stopped()
        })
        worker.onerror = (event) => {
            event.preventDefault()
            resolve(undefined)
        }
        worker.onmessage = ({ data }: { data: FromWorker }) => {
            switch (data.type) {
                case "failed":
                    worker.terminate()
                    return reject(new Error(data.message))
                case "port":
                    if (port.onmessage) return port.onmessage(data.message)
                    worker.onerror = null
                    return resolve({ ...running, welcome: data.message as Welcome })
                case "trapped":
                    worker.terminate()
                    onTrap(data.document, data.message)
                    return reject(new Error(data.message))
                case "stopped":
                    return stopped()
            }
        }
        post({ type: "start", options, module })
    })
}
