/**
 * Documents that are kept in the browser, edited at once, and synced with relays.
 *
 * `reconverge/base64` exports the same; it carries the WebAssembly module in itself, for bundlers
 * that copy no files.
 *
 * @module reconverge
 */

import { source } from "../dist/worker-source.js"
import { usePlatform } from "./repo.js"
import { absolute } from "./platform.js"

usePlatform({
    get module() {
        // The only place that names the module by its url, so that bundlers emit it once.
        return absolute(new URL("./core/reconverge_bg.wasm", import.meta.url).href)
    },
    webSocket: (url) => new WebSocket(url),
    workerSource: source,
})

export * from "./index.js"
