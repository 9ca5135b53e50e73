// The entry for Node.js and Bun. The engine runs in the caller's thread.

import { readFileSync } from "node:fs"
import { WebSocket } from "ws"
import { FileStorage } from "./file.js"
import { usePlatform } from "./repo.js"

usePlatform({
    get module() {
        try {
            return readFileSync(new URL("./core/reconverge_bg.wasm", import.meta.url))
        } catch {
            // A bundler made a script of this, and left the file where it was or gave it a web address.
            return import("./embedded-module.js").then(({ module }) => module())
        }
    },
    file: (path) => new FileStorage(path),
    webSocket: (url) => new WebSocket(url),
})

export * from "./index.js"
