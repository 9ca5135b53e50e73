// For vitest and jest.

import * as reconverge from "reconverge"
import { expected, use } from "./use.mjs"

test("an app's test has documents", async () => {
  expect(typeof document).toBe("object")
  expect(await use(reconverge)).toBe(expected)
  const repo = await reconverge.Repo.open()
  const handle = await repo.create({ text: "kept in memory" })
  expect(handle.doc()).toEqual({ text: "kept in memory" })
  await repo.shutdown()
})
