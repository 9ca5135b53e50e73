// For a page, whichever tool built it.

import * as reconverge from "reconverge"
import { count, use } from "./use.mjs"

const all = async () => ({ value: await use(reconverge), opened: await count(reconverge) })

all().then(
  outcome => (globalThis.outcome = outcome),
  error => (globalThis.outcome = { error: String(error.stack) })
)
