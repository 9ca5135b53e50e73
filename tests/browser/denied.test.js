// Features of the browser that the package uses, each taken away in turn: a repo opens all the same.
// Where documents cannot be kept they are in memory, and the repo says so.

import assert from "node:assert/strict"
import { build } from "esbuild"
import { packageFolder } from "./lib/package.js"
import { story } from "./lib/world.js"

/** What a page has before any script of its own. */
const HELPERS = `
  const denied = () => { throw new DOMException("denied by the test", "SecurityError") }
  const take = (name, descriptor, of = globalThis) =>
    Object.defineProperty(of, name, { configurable: true, ...descriptor })
  const later = () => new Promise((_, reject) => setTimeout(() => reject(new DOMException("denied by the test", "SecurityError"))))
`

const IN_MEMORY = /^RepoError: documents are in memory only, and gone when this page is: /
const DENIED = /denied by the test|does not let this site keep data/

/** How each is taken away, and the one problem that is told then, or the error; else all is as ever. */
const CASES = {
  "IndexedDB is missing": ["take('indexedDB', { value: undefined })", { problem: /IndexedDB/ }],
  "IndexedDB is null": ["take('indexedDB', { value: null })", { problem: /IndexedDB/ }],
  "IndexedDB throws when it is looked at": ["take('indexedDB', { get: denied })", { problem: DENIED }],
  "IndexedDB throws when it is opened": ["IDBFactory.prototype.open = denied", { problem: DENIED, worker: false }],
  "IndexedDB fails later": [
    `IDBFactory.prototype.open = () => {
      const request = { error: new DOMException("denied by the test", "SecurityError") }
      setTimeout(() => request.onerror())
      return request
    }`,
    { problem: DENIED, worker: false },
  ],
  "IndexedDB lets nobody write, as in private windows of older Firefox": [
    `IDBFactory.prototype.open = () => {
      const request = { error: new DOMException("denied by the test", "InvalidStateError") }
      setTimeout(() => request.onerror())
      return request
    }`,
    { problem: DENIED, worker: false },
  ],
  "there are no Web Locks": ["take('locks', { value: undefined }, Navigator.prototype)", { problem: /Web Locks/ }],
  "Web Locks throw when they are looked at": ["take('locks', { get: denied }, Navigator.prototype)", { problem: DENIED }],
  "Web Locks throw when one is asked for": ["globalThis.LockManager && (LockManager.prototype.request = denied)", { problem: DENIED }],
  "Web Locks fail later": ["globalThis.LockManager && (LockManager.prototype.request = later)", { problem: DENIED }],
  "BroadcastChannel is missing": ["take('BroadcastChannel', { value: undefined })", { problem: /BroadcastChannel/ }],
  "BroadcastChannel throws": ["take('BroadcastChannel', { value: function () { denied() } })", { problem: DENIED }],
  "Worker is missing": ["take('Worker', { value: undefined })", {}],
  "Worker throws when it is looked at": ["take('Worker', { get: denied })", {}],
  "Worker throws": ["take('Worker', { value: function () { denied() } })", {}],
  "Worker fails later": [
    `const Real = Worker
    take('Worker', { value: class { constructor() { return new Real("data:text/javascript,throw new Error()") } } })`,
    {},
  ],
  "blobs have no urls": ["URL.createObjectURL = denied", {}],
  "crypto is missing": ["take('crypto', { value: undefined })", { error: /^RepoError: .*random numbers/ }],
  "crypto throws": ["Crypto.prototype.getRandomValues = denied", { error: /^RepoError: .*random numbers/ }],
}

/** Opens a repo in the page and uses it. Listens late, as apps do that open it in one place and show it in another. */
const used = (page, options = {}) =>
  page.evaluate(async options => {
    const problems = []
    try {
      const repo = await reconverge.Repo.open(options)
      const handle = await repo.create({ text: "made" })
      handle.change(draft => (draft.text = "edited"))
      repo.on("problem", error => problems.push(String(error)))
      repo.on("problem", () => problems.push("of one who went off"))()
      await repo.flush()
      const found = await repo.find(handle.url)
      const { text } = found.doc()
      await repo.shutdown()
      return { text, problems }
    } catch (error) {
      return { error: String(error) }
    }
  }, options)

function check(found, { problem, error }) {
  if (error) return assert.match(found.error, error)
  assert.equal(found.text, "edited", JSON.stringify(found))
  assert.equal(found.problems.length, problem ? 1 : 0, JSON.stringify(found))
  if (!problem) return
  assert.match(found.problems[0], IN_MEMORY)
  assert.match(found.problems[0], problem)
}

for (const [name, [script, { worker, ...expected }]] of Object.entries(CASES)) {
  story(`${name}: a repo opens${expected.problem ? " in memory" : expected.error ? " not, and says why" : ""}`, async world => {
    const site = await world.site()
    const context = await world.context()
    await context.addInitScript(`{ ${HELPERS}; ${script} }`)
    world.expect(/may not start a Worker from a blob/)
    const page = await world.plain(site, context)
    check(await used(page, { ...(worker !== undefined && { worker }) }), expected)
    if (!expected.problem) return
    // Who does not want that is told instead.
    const refused = await used(page, { storage: "indexeddb", ...(worker !== undefined && { worker }) })
    assert.match(refused.error, /^RepoError: /)
    assert.match(refused.error, expected.problem)
  })
}

story("a sandboxed frame, which has no origin: a repo opens in memory", async world => {
  const { outputFiles } = await build({
    stdin: { contents: `export * from "./dist/base64.js"`, resolveDir: packageFolder() },
    ...{ bundle: true, format: "iife", globalName: "reconverge", write: false, target: "es2022" },
  })
  const site = await world.site({
    "/frame.html": `<!doctype html><link rel="icon" href="data:,"><iframe sandbox="allow-scripts" src="/inner.html"></iframe>`,
    "/inner.html": `<!doctype html><script src="/inner.js"></script>`,
    "/inner.js": outputFiles[0].text,
  })
  const page = await world.page(`${site.url}/frame.html`)
  const frame = page.frames().find(frame => frame.url().endsWith("/inner.html"))
  await frame.waitForFunction(() => window.reconverge !== undefined)
  check(await used(frame), { problem: /denied|Locks|IndexedDB/i })
})
