// What runs in the Web Worker of the tab that is the host's: a host.

import { Host } from "./host/host.js"
import { words, type HostMessage, type PageMessage, type Port } from "./host/protocol.js"
import { serveTabs } from "./host/serve.js"
import { IndexedDbStorage } from "./indexeddb.js"
import { MemoryStorage } from "./memory.js"
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
    if (data.type === "port") port.onmessage?.(data.message)
    else if (data.type === "start") void start(data)
    else void (stop?.() ?? Promise.resolve()).finally(() => worker.postMessage({ type: "stopped" }))
}

async function start({ options, module }: Extract<ToWorker, { type: "start" }>): Promise<void> {
    try {
        const storage = options.keeps ? new IndexedDbStorage({ name: options.name }) : new MemoryStorage()
        const webSocket = (url: string): WebSocket => new WebSocket(url)
        const host = await Host.start({ options, storage, webSocket, module })
        host.ontrap = (document, error) => {
            worker.postMessage({ type: "trapped", document, message: String(error) })
        }
        host.attach(port)
        const end = options.keeps ? serveTabs(host, options.name) : () => {}
        stop = async () => {
            end()
            await host.close()
        }
        worker.postMessage({ type: "started" })
    } catch (error) {
        worker.postMessage({ type: "failed", message: words(error) })
    }
}
