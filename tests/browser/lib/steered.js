// How functions get into pages that are steered by text, and what they give gets out.

/** The body of an async function that calls `fn(argument)` and returns a text for `outOfPage`. */
export const inPage = (fn, argument) => `
  try {
    const value = await (${fn})(${JSON.stringify(argument) ?? "undefined"})
    return JSON.stringify({ value })
  } catch (error) {
    return JSON.stringify({ error: String(error?.message ?? error), stack: error?.stack })
  }`

/** What `fn` gave; throws what it threw. */
export function outOfPage(text) {
  const { value, error, stack } = JSON.parse(text)
  if (error === undefined) return value
  throw new Error(`in the page: ${error}\n${stack}`)
}

/** The keys that type a text, as both protocols name them. */
export const keysOf = text => [
  { type: "key", id: "keyboard", actions: [...text].flatMap(value => [{ type: "keyDown", value }, { type: "keyUp", value }]) },
]
