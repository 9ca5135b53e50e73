import * as reconverge from "reconverge"
import { use } from "../../use.mjs"

/** On the server. */
export async function GET() {
  return Response.json({ value: await use(reconverge) })
}

export const dynamic = "force-dynamic"
