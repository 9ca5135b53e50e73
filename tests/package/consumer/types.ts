// The types resolve, and are not `any`.

import { Repo, type DocHandle } from "reconverge"
import { Repo as OfBase64 } from "reconverge/base64"

export async function types(): Promise<unknown[]> {
  const repo: Repo = await Repo.open({ storage: "memory" })
  const handle: DocHandle<{ said: string }> = await repo.create({ said: "hello" })
  const said: string = handle.doc().said
  // @ts-expect-error It is a string.
  const wrong: number = handle.doc().said
  // @ts-expect-error There is no such option.
  await OfBase64.open({ storage: "nowhere" })
  return [said, wrong]
}
