// The entry for workerd, which compiles modules ahead of time.

import module from "./core/reconverge_bg.wasm"
import { usePlatform } from "./repo.js"

usePlatform({ module, webSocket: (url) => new WebSocket(url) })

export * from "./index.js"
