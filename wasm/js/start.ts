// Where a host runs: in a Worker if the page may start one, else here.

import type { HostMessage, HostOptions, PageMessage, Port, Welcome } from "./host/protocol.js"
import { hostDependencies } from "./host-dependencies.js"
import type { OnTrap, Platform, Running } from "./platform.js"
import type { Storage } from "./storage.js"

export type ToWorker =
    | { readonly type: "start"; readonly options: HostOptions; readonly module: unknown }
    | { readonly type: "port"; readonly messages: readonly PageMessage[] }
    | { readonly type: "stop" }

export type FromWorker =
    | { readonly type: "failed"; readonly message: string }
    | { readonly type: "port"; readonly message: HostMessage }
    | { readonly type: "trapped"; readonly document: string | undefined; readonly message: string }
    | { readonly type: "stopped" }

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
    const { startHere } = await import("./run-host.js")
    return startHere(platform, hostDependencies, options, storage, onTrap)
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
