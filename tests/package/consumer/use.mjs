// What every consumer does with the package; the only file to change when its API does.

/** What `use` returns when all is well. */
export const expected = "hello, there"

/** `reconverge` is all that the package exports. */
export async function use({ Repo, splice }) {
  const repo = await Repo.open({ storage: "memory" })
  const handle = await repo.create({ text: "hello" })
  handle.change(draft => splice(draft, ["text"], 5, 0, ", there"))
  await repo.flush()
  const heads = await handle.heads()
  const { text } = await handle.view(heads)
  await repo.shutdown()
  return text
}

/** How often this browser opened the page, as a document that it keeps says. */
export async function count({ Repo }) {
  const repo = await Repo.open()
  const url = localStorage.getItem("counted")
  const handle = url ? await repo.find(url) : await repo.create({ opened: 0 })
  localStorage.setItem("counted", handle.url)
  handle.change(draft => (draft.opened += 1))
  await repo.flush()
  const { opened } = handle.doc()
  await repo.shutdown()
  return opened
}
