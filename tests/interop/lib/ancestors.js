// Who knew what in a recorded session. Without packages: the bench of the browser reads it too.

/** The transactions behind `parents` that are not in `seen`, oldest first; marks them seen. */
export function unseenAncestors(txns, parents, seen) {
  const found = []
  const open = [...parents]
  while (open.length > 0) {
    const at = open.pop()
    if (seen.has(at)) continue
    seen.add(at)
    found.push(at)
    open.push(...txns[at].parents)
  }
  return found.sort((a, b) => a - b)
}
