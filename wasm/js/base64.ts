// The entry that carries the module in itself, for bundlers that copy no files.

import { source } from "../dist/worker-source.js"
import { module } from "./embedded-module.js"
import { usePlatform } from "./repo.js"

usePlatform({
    get module() {
        return module()
    },
    webSocket: (url) => new WebSocket(url),
    workerSource: source,
})

export * from "./index.js"
