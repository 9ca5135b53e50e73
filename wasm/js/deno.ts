// The entry for Deno, which has a WebSocket of its own. The engine runs in the caller's thread.

import { readFileSync } from "node:fs"
import { usePlatform } from "./repo.js"

usePlatform({
    get module() {
        return readFileSync(new URL("./core/reconverge_bg.wasm", import.meta.url))
    },
    webSocket: (url) => new WebSocket(url),
})

export * from "./index.js"
