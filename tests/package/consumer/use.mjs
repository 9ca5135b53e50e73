// What every consumer does with the package; the only file to change when its API does.

/** What `use` returns when all is well. */
export const expected = "1"

/** `reconverge` is all that the package exports. */
export async function use(reconverge) {
  await reconverge.ready()
  return reconverge.protocolVersion()
}
