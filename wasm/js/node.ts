// The entry for Node.js, Deno and Bun. A placeholder.

import { readFileSync } from "node:fs"
import { initSync } from "../dist/core/reconverge.js"

export { documentId, protocolVersion } from "../dist/core/reconverge.js"

initSync({ module: readFileSync(new URL("./core/reconverge_bg.wasm", import.meta.url)) })

export const ready = async (): Promise<void> => {}
