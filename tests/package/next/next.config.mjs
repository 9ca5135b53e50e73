import { dirname } from "node:path"
import { fileURLToPath } from "node:url"

// Where its dependencies are.
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
export default { turbopack: { root }, outputFileTracingRoot: root }
