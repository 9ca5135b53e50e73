// For Node.js and Deno.

import * as reconverge from "reconverge"
import { use } from "./use.mjs"

console.log(`outcome: ${JSON.stringify(await use(reconverge))}`)
