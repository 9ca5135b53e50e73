// Signing out: what is kept here is wiped, for all tabs, and nothing is lost that nobody else has. And
// documents that are fetched before they are needed.

import assert from "node:assert/strict"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { MemoryStorage, Repo } from "../../wasm/dist/node.js"
import { until } from "../interop/lib/wait.js"
import { create, open } from "./lib/doc.js"
import { story } from "./lib/world.js"

const disposed = repo => Object.assign(repo, { dispose: () => repo.shutdown() })
const UNKNOWN = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ"

story("in Node.js: what no relay has is named and kept, unless it is to be wiped as well", async world => {
  const relay = await world.relay()
  const storage = new MemoryStorage()
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url, storage })))
  const [sent, unsent] = [await repo.create({ n: 1 }), await repo.create({ n: 1 })]
  await Promise.all([sent.whenSynced(), unsent.whenSynced()])
  unsent.release()
  // What is on its way is waited for.
  sent.change(draft => (draft.n = 2))
  repo.goOffline()
  await until("no connection", () => !repo.isConnected)
  const left = await repo.find(unsent.url)
  left.change(draft => (draft.n = 3))
  const refused = await repo.wipe().catch(error => error)
  assert.equal(refused.code, "unsent")
  assert.ok(refused.urls.includes(unsent.url) && refused.message.includes(unsent.url))
  assert.equal((await repo.documents()).length, 2)
  assert.equal(left.doc().n, 3)

  const told = []
  for (const event of ["delete", "close"]) left.on(event, () => told.push(event))
  assert.ok((await repo.wipe({ evenUnsent: true })).includes(unsent.url))
  assert.deepEqual(told, ["delete", "close"])
  assert.throws(() => left.change(draft => (draft.n = 4)), { code: "deleted" })
  assert.deepEqual(await repo.documents(), [])
  assert.equal(repo.status.state, "saved")
  assert.ok((await storage.keys([])).every(([part]) => part === "client"))
  await assert.rejects(repo.find(unsent.url), { code: "unavailable" })

  // It goes on, and finds what the relay has.
  repo.goOnline()
  const again = await repo.find(unsent.url, { wait: true })
  assert.equal(again.doc().n, 1)
  again.change(draft => (draft.n = 5))
  assert.deepEqual(await repo.wipe(), [], "what is being sent is waited for")
  assert.deepEqual(await repo.documents(), [])
  assert.deepEqual(await repo.wipe(), [])
})

story("in a file: nothing of what was wiped is in it", async world => {
  const folder = mkdtempSync(join(tmpdir(), "reconverge-wipe-"))
  world.adopt({ dispose: async () => rmSync(folder, { recursive: true, force: true }) })
  const file = join(folder, "documents")
  const repo = await Repo.open({ storage: { file } })
  await repo.create({ secret: "a secret that is nowhere else" })
  await repo.flush()
  assert.ok(readFileSync(file).includes("a secret that"))
  await assert.rejects(repo.wipe(), { code: "unsent" })
  await repo.wipe({ evenUnsent: true })
  assert.ok(!readFileSync(file).includes("a secret that"))
  const made = await repo.create({ n: 1 })
  await repo.shutdown()
  const next = world.adopt(disposed(await Repo.open({ storage: { file } })))
  assert.deepEqual(await next.documents(), [made.url])
})

/** All keys of the databases of a page's origin. */
const kept = page =>
  page.evaluate(async () => {
    const asked = request => new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result)
      request.onerror = () => reject(request.error)
    })
    const keys = []
    for (const { name } of await indexedDB.databases()) {
      const database = await asked(indexedDB.open(name))
      for (const store of database.objectStoreNames) {
        for (const key of await asked(database.transaction(store).objectStore(store).getAllKeys())) keys.push([name, ...key])
      }
      database.close()
    }
    return keys
  })

for (const leader of ["first", "second"]) {
  story(`tabs: the ${leader} one wipes for both, and a third one finds nothing`, async world => {
    const relay = await world.relay()
    const site = await world.site()
    const first = await world.plain(site)
    await open(first, { relay: relay.url })
    const url = await create(first, { text: "mine" })
    await first.evaluate(() => doc.whenSynced())
    const second = await world.plain(site, first.context())
    await open(second, { relay: relay.url })
    await second.evaluate(async url => {
      window.doc = await repo.find(url)
      window.told = []
      doc.on("delete", () => told.push("delete"))
      window.other = await repo.create({ n: 1 })
      other.change(draft => (draft.n = 2))
      await other.undo()
    }, url)
    const [by, from] = leader === "first" ? [first, second] : [second, first]
    await by.evaluate(() => repo.goOffline())
    await from.evaluate(() => doc.change(draft => (draft.text = "unsent")))
    await until("the other tab to show it", () => by.evaluate(() => doc.doc().text === "unsent"))
    const refused = await by.evaluate(() => repo.wipe().catch(({ code, urls }) => ({ code, urls })))
    assert.equal(refused.code, "unsent")
    assert.ok(refused.urls.includes(url))
    assert.ok((await kept(by)).length > 3)

    await by.evaluate(() => repo.goOnline())
    await from.evaluate(() => doc.whenSynced())
    assert.deepEqual(await by.evaluate(() => repo.wipe()), [])
    await until("the second tab to be told", () => second.evaluate(() => told.includes("delete")))
    for (const page of [first, second]) {
      assert.deepEqual(await page.evaluate(() => repo.documents()), [])
      assert.match(await page.evaluate(() => { try { doc.change(draft => (draft.text = "x")) } catch (error) { return error.code } }), /deleted/)
    }
    await until("nothing to be kept but what names the relays", async () =>
      (await kept(by)).every(([, part]) => part === "client"), { seen: () => kept(by) })

    // Both go on, with what the relay has.
    assert.equal(await second.evaluate(async url => (await repo.find(url)).doc().text, url), "unsent")
    await first.evaluate(() => repo.wipe())
    await first.evaluate(() => repo.goOffline())
    const third = await world.plain(site, first.context())
    await open(third, { relay: relay.url })
    await first.close()
    await second.close()
    assert.deepEqual(await third.evaluate(() => repo.documents()), [])
  })
}

story("a page that the browser kept meanwhile does not bring back what was wiped", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const kept = await world.plain(site)
  await open(kept, { relay: relay.url })
  const url = await create(kept, { n: 1 })
  await kept.evaluate(() => doc.whenSynced())
  const transition = type =>
    kept.evaluate(type => void dispatchEvent(new PageTransitionEvent(type, { persisted: true })), type)
  await transition("pagehide")
  const other = await world.plain(site, kept.context())
  await open(other, { relay: relay.url })
  assert.deepEqual(await other.evaluate(() => repo.wipe()), [])
  await kept.evaluate(() => {
    window.told = []
    doc.on("delete", () => told.push("delete"))
    doc.change(draft => (draft.n = 2))
  })
  await transition("pageshow")
  await until("it to be told", () => kept.evaluate(() => told.includes("delete")))
  for (const page of [kept, other]) assert.deepEqual(await page.evaluate(() => repo.documents()), [])
  // What is found from now on is the relay's.
  assert.equal(await kept.evaluate(async url => (await repo.find(url)).doc().n, url), 1)
})

story("documents that are fetched before are there without a network", async world => {
  const relay = await world.relay()
  const owner = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  const made = await Promise.all(Array.from({ length: 20 }, (_, n) => owner.create({ n })))
  await Promise.all(made.map(doc => doc.whenSynced()))
  const urls = made.map(({ url }) => url)
  const site = await world.site()
  const page = await world.plain(site)
  await open(page, { relay: relay.url })
  const unfetched = await page.evaluate(
    async urls => (await repo.prefetch(urls)).map(({ url, error }) => [url, error.code, error.message]),
    [...urls, urls[0], UNKNOWN, "automerge:nonsense"]
  )
  const messages = [
    [UNKNOWN, "unavailable", `${UNKNOWN} is not here, and no relay that is connected has it`],
    ["automerge:nonsense", "failed", '"automerge:nonsense" is no url of a document'],
  ]
  assert.deepEqual(unfetched.sort(), messages.sort(), "as find says it")
  assert.deepEqual((await page.evaluate(() => repo.documents())).sort(), [...urls].sort())
  await relay.kill()
  await page.reload()
  await open(page, { relay: relay.url })
  const seen = await page.evaluate(urls => Promise.all(urls.map(async url => (await repo.find(url)).doc().n)), urls)
  assert.deepEqual(seen, urls.map((_, n) => n))
  assert.deepEqual(await page.evaluate(urls => repo.prefetch(urls), urls), [], "what is here is not asked for")
})

story("fetching ends with its signal and with the repo", async world => {
  const relay = await world.relay()
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  await assert.rejects(repo.prefetch([UNKNOWN], { signal: AbortSignal.abort(new Error("enough")) }), /enough/)
  await assert.rejects(repo.prefetch(UNKNOWN), { code: "failed" })
  const closing = repo.prefetch([UNKNOWN])
  await repo.shutdown()
  await assert.rejects(closing, { code: "closed" })
})
