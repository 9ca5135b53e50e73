// For a page, whichever tool built it.

import * as reconverge from "reconverge"
import { use } from "./use.mjs"

use(reconverge).then(
  value => (globalThis.outcome = { value }),
  error => (globalThis.outcome = { error: String(error.stack) })
)
