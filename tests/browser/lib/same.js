// Assertions that work in pages, in workers and in Node.js.

/** Bytes as a list behind their type, so that JSON shows them; what is undefined, by name. */
const plain = (_, value) => {
  if (value === undefined) return "<undefined>"
  if (value instanceof Uint8Array) return { Uint8Array: [...value] }
  return value
}

export function same(actual, expected) {
  const [a, b] = [actual, expected].map(value => JSON.stringify(value, plain))
  if (a !== b) throw new Error(`found ${a?.slice(0, 2000)} where ${b?.slice(0, 2000)} is right`)
}

/** The error that `promise` rejects with. */
export async function rejection(promise) {
  let value
  try {
    value = await promise
  } catch (error) {
    return error
  }
  throw new Error(`found ${JSON.stringify(value, plain)} where a rejection is right`)
}
