// The entry for pages and bundlers. A placeholder.

import init from "../dist/core/reconverge.js"
import { source } from "../dist/worker-source.js"

export { documentId, protocolVersion } from "../dist/core/reconverge.js"

// The only place that names the module by its url, so that bundlers emit it once.
const wasm = new URL("./core/reconverge_bg.wasm", import.meta.url)

export const ready = async (): Promise<void> => {
  await init({ module_or_path: wasm })
}

/** What the worker answers: the version of the protocol. */
export const ask = (): Promise<string> =>
  new Promise((resolve, reject) => {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }))
    const worker = new Worker(url)
    worker.onmessage = ({ data }) => resolve(data as string)
    worker.onerror = ({ message }) => reject(new Error(message))
    worker.postMessage(wasm.href)
    URL.revokeObjectURL(url)
  })
