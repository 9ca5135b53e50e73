// Storage in a file, for tests in Node.js.

export { FileStorage, lock } from "../../../wasm/js/file.js"
export { StorageError } from "../../../wasm/js/storage.js"
export { cases } from "./storage-cases.js"
