// The entry that carries the module in itself, for bundlers that copy no files.

import { base64 } from "../dist/wasm-base64.js"
import { source } from "../dist/worker-source.js"
import { usePlatform } from "./repo.js"

usePlatform({
    get module() {
        return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))
    },
    webSocket: (url) => new WebSocket(url),
    workerSource: source,
})

export * from "./index.js"
