// What runs in the Web Worker of the tab that is the host's: a host.

import { runHost } from "./run-host.js"
import { words, type HostMessage, type PageMessage, type Port } from "./host/protocol.js"
import { hostDependencies } from "./host-dependencies.js"
import type { FromWorker, ToWorker } from "./start.js"

const worker = globalThis as unknown as {
    onmessage: ((event: { data: ToWorker }) => void) | null
    postMessage(message: FromWorker): void
}

const port: Port<HostMessage, PageMessage> = {
    post: (message) => worker.postMessage({ type: "port", message }),
    onmessage: undefined,
    close: () => {},
}
let stop: (() => Promise<void>) | undefined

worker.onmessage = ({ data }) => {
    // Each on its own, whatever comes of the one before.
    if (data.type === "port") for (const message of data.messages) queueMicrotask(() => port.onmessage?.(message))
    else if (data.type === "start") void start(data)
    else void (stop?.() ?? Promise.resolve()).finally(() => worker.postMessage({ type: "stopped" }))
}

async function start({ options, module }: Extract<ToWorker, { type: "start" }>): Promise<void> {
    try {
        const platform = { module, webSocket: (url: string): WebSocket => new WebSocket(url) }
        const running = await runHost(platform, hostDependencies, options, undefined, port, (document, message) => {
            worker.postMessage({ type: "trapped", document, message })
        })
        stop = running.stop
    } catch (error) {
        worker.postMessage({ type: "failed", message: words(error) })
    }
}
