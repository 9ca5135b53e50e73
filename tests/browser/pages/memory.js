// Storage in memory, for a test in Node.js.

export { MemoryStorage } from "../../../wasm/js/memory.js"
export { StorageError } from "../../../wasm/js/storage.js"
export { cases } from "./storage-cases.js"
