// A page with one repo as `repo` and one document as `doc`, steered from the test.

import { until } from "../../interop/lib/wait.js"

/** Opens a repo in a page, as `repo`. */
export const open = (page, options) =>
  page.evaluate(async options => {
    window.repo = await reconverge.Repo.open(options)
    window.problems = []
    repo.on("problem", problem => problems.push(String(problem)))
  }, options)

/** Makes a document in a page, as `doc`, and gives its url. */
export const create = (page, initial) =>
  page.evaluate(async initial => {
    window.doc = await repo.create(initial)
    return doc.url
  }, initial)

export const find = (page, url) =>
  page.evaluate(async url => {
    window.doc = await repo.find(url)
  }, url)

export const show = page => page.evaluate(() => doc.doc())
export const status = page => page.evaluate(() => doc.status.state)
export const synced = page => page.evaluate(() => doc.whenSynced())
export const flush = page => page.evaluate(() => repo.flush())

/** Waits until the document of a page is as expected. */
export async function becomes(page, expected) {
  const is = async () => JSON.stringify(await show(page)) === JSON.stringify(expected)
  await until(`the document to be ${JSON.stringify(expected)}`, is, { seen: () => show(page) })
}

export const becomesStatus = (page, expected) =>
  until(`the status ${expected}`, async () => (await status(page)) === expected, {
    seen: () => status(page),
  })

/** Inserts text into `doc.text`. */
export const type = (page, index, text) =>
  page.evaluate(
    ([index, text]) => doc.change(draft => reconverge.splice(draft, ["text"], index, 0, text)),
    [index, text]
  )
