// The module inside a script.

import { base64 } from "../dist/wasm-base64.js"

export const module = (): Uint8Array<ArrayBuffer> => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))
