// The entry that carries the module in itself. A placeholder.

import { base64 } from "../dist/wasm-base64.js"
import { initSync } from "../dist/core/reconverge.js"

export { documentId, protocolVersion } from "../dist/core/reconverge.js"

initSync({ module: Uint8Array.from(atob(base64), char => char.charCodeAt(0)) })

export const ready = async (): Promise<void> => {}
