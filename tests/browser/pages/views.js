// The host and the handles of pages without their threads: what they say arrives when a test says.

export { Counter } from "../../../wasm/js/counter.ts"
export { mark, splice } from "../../../wasm/js/draft.ts"
export { DocHandle } from "../../../wasm/js/handle.ts"
export { Host } from "../../../wasm/js/host/host.ts"
export { Repo, usePlatform } from "../../../wasm/js/repo.ts"
export { MemoryStorage } from "../../../wasm/js/memory.ts"
