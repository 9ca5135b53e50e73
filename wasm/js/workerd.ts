// The entry for workerd, which compiles modules ahead of time. A placeholder.

import module from "./core/reconverge_bg.wasm"
import { initSync } from "../dist/core/reconverge.js"

export { documentId, protocolVersion } from "../dist/core/reconverge.js"

initSync({ module })

export const ready = async (): Promise<void> => {}
