// The entry that needs no file beside it.

import * as reconverge from "reconverge/base64"
import { use } from "./use.mjs"

console.log(`outcome: ${JSON.stringify(await use(reconverge))}`)
