// Storage in a file, for tests in Node.js.

export { FileStorage } from "../../../wasm/js/file.js"
export { lock } from "../../../wasm/js/file/lock.js"
export { StorageError } from "../../../wasm/js/storage.js"
export { cases } from "./storage-cases.js"
