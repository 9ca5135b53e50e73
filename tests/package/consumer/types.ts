// The types resolve, and are not `any`.

import * as reconverge from "reconverge"
import * as base64 from "reconverge/base64"

const version: string = reconverge.protocolVersion()
// @ts-expect-error It is a string.
const wrong: number = base64.protocolVersion()

export { version, wrong }
