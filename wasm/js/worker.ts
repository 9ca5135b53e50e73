// What runs in the Web Worker. A placeholder.

import init, { protocolVersion } from "../dist/core/reconverge.js"

self.onmessage = async ({ data }) => {
  await init({ module_or_path: data as string })
  self.postMessage(protocolVersion())
}
