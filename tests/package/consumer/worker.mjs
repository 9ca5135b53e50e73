// For workerd.

import * as reconverge from "reconverge"
import { use } from "./use.mjs"

export default {
  fetch: async () => new Response(JSON.stringify(await use(reconverge))),
}
