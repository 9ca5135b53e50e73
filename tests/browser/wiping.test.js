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
  repo.on("offline", () => told.push("offline"))
  assert.ok((await repo.wipe({ evenUnsent: true })).includes(unsent.url))
  assert.deepEqual(told, ["delete", "close"])
  assert.throws(() => left.change(draft => (draft.n = 4)), { code: "deleted" })
  assert.deepEqual(await repo.documents(), [])
  assert.equal(repo.status.state, "saved")
  assert.deepEqual([repo.isOffline, repo.isConnected], [true, false])
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

class Holding extends MemoryStorage {
  /** How many documents were kept after each commit. */
  numbers = []

  #holds = []

  /** Holds back the first call that `isHeld`, from when it has `come` until it is let go or refused. */
  hold(isHeld) {
    const hold = { isHeld }
    hold.come = new Promise(resolve => (hold.comes = resolve))
    hold.gone = new Promise((letGo, refuse) => Object.assign(hold, { letGo, refuse }))
    this.#holds.push(hold)
    return hold
  }

  async #wait(...call) {
    const at = this.#holds.findIndex(({ isHeld }) => isHeld(...call))
    if (at < 0) return
    const [hold] = this.#holds.splice(at, 1)
    hold.comes()
    await hold.gone
  }

  async keys(prefix) {
    await this.#wait("keys", prefix)
    return super.keys(prefix)
  }

  async commit(writes) {
    await this.#wait("commit", writes)
    await super.commit(writes)
    const names = (await super.keys(["documents"])).map(([, name]) => name)
    this.numbers.push(new Set(names).size)
  }

  /** What a process that begins anew finds. */
  async copy() {
    const copy = new MemoryStorage()
    await copy.commit((await this.loadRange([])).map(({ key, data }) => ({ put: key, data })))
    return copy
  }
}

const isWipe = (name, writes) => name === "commit" && writes.some(({ removeRange }) => removeRange?.length === 0)

const isLook = (name, prefix) => name === "keys" && prefix.length === 2

for (const name of ["create", "import"]) {
  const begun = async world => {
    const storage = new Holding()
    const repo = world.adopt(disposed(await Repo.open({ storage })))
    const before = await repo.create({ n: 0 })
    const bytes = await repo.export(before.url)
    const make = () => (name === "create" ? repo.create({ n: 1 }) : repo.import(bytes))
    return { storage, repo, before, make }
  }
  const isWhole = async (world, { storage, repo }, doc) => {
    doc.change(draft => (draft.n = 5))
    await doc.whenSynced({ level: "local" })
    assert.deepEqual(await repo.documents(), [doc.url])
    const next = world.adopt(disposed(await Repo.open({ storage: await storage.copy() })))
    assert.equal((await next.find(doc.url)).doc().n, 5)
  }

  story(`${name}: what was begun before a wipe and ends after it is kept whole`, async world => {
    const { storage, repo, before, make } = await begun(world)
    const look = storage.hold(isLook)
    const made = make()
    await look.come
    assert.deepEqual(await repo.wipe({ evenUnsent: true }), [before.url])
    look.letGo()
    await isWhole(world, { storage, repo }, await made)
  })

  story(`${name}: what goes on while the wipe is stored is kept whole`, async world => {
    const { storage, repo, before, make } = await begun(world)
    const [look, wipe] = [storage.hold(isLook), storage.hold(isWipe)]
    const made = make()
    await look.come
    const wiped = repo.wipe({ evenUnsent: true })
    await wipe.come
    look.letGo()
    // It goes as far as it can.
    await new Promise(setImmediate)
    wipe.letGo()
    assert.deepEqual(await wiped, [before.url])
    await isWhole(world, { storage, repo }, await made)
  })

  story(`${name}: what is begun while the wipe is stored is kept whole`, async world => {
    const { storage, repo, before, make } = await begun(world)
    const wipe = storage.hold(isWipe)
    const wiped = repo.wipe({ evenUnsent: true })
    await wipe.come
    const made = make()
    wipe.letGo()
    assert.deepEqual(await wiped, [before.url])
    await isWhole(world, { storage, repo }, await made)
  })
}

story("an edit in the very moment of a wipe is told to be lost, and never shown as saved", async world => {
  const relay = await world.relay()
  const storage = new Holding()
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url, storage })))
  const doc = await repo.create({ n: 1 })
  await doc.whenSynced()
  const told = []
  doc.on("error", ({ code }) => told.push(code))
  for (const event of ["delete", "close"]) doc.on(event, () => told.push(event))
  const wipe = storage.hold(isWipe)
  const wiped = repo.wipe()
  await wipe.come
  doc.change(draft => (draft.n = 2))
  const [history, synced] = [doc.history(), doc.whenSynced()].map(call => call.catch(({ code }) => code))
  wipe.letGo()
  assert.deepEqual(await wiped, [])
  assert.equal(await synced, "deleted")
  await history
  assert.deepEqual(told, ["deleted", "delete", "close"])
  assert.equal(doc.status.state, "offline")
  assert.deepEqual([doc.canUndo, doc.canRedo], [false, false])
  assert.equal((await repo.find(doc.url)).doc().n, 1)
})

story("a wipe that the storage refuses removes nothing, and what was made meanwhile is kept", async world => {
  const storage = new Holding()
  const repo = world.adopt(disposed(await Repo.open({ storage })))
  const doc = await repo.create({ n: 1 })
  const wipe = storage.hold(isWipe)
  const wiped = repo.wipe({ evenUnsent: true })
  await wipe.come
  doc.change(draft => (draft.n = 2))
  const made = repo.create({ n: 3 })
  wipe.refuse(new Error("the disk is full"))
  await assert.rejects(wiped, { code: "storage" })
  await Promise.all([made, doc.whenSynced({ level: "local" })])
  assert.equal((await repo.documents()).length, 2)
  const next = world.adopt(disposed(await Repo.open({ storage: await storage.copy() })))
  assert.equal((await next.find(doc.url)).doc().n, 2)
  assert.equal((await repo.wipe({ evenUnsent: true })).length, 2)
})

story("a wipe removes all at once, and says so to whoever shuts the repo down meanwhile", async world => {
  for (const when of ["at once", "when told"]) {
    const storage = new Holding()
    const repo = world.adopt(disposed(await Repo.open({ storage })))
    const docs = await Promise.all(Array.from({ length: 5 }, (_, n) => repo.create({ n })))
    docs[0].release()
    storage.numbers = []
    docs[1].on("delete", () => void repo.shutdown())
    const wiped = repo.wipe({ evenUnsent: true })
    if (when === "at once") void repo.shutdown()
    assert.equal((await wiped).length, 5)
    assert.ok(storage.numbers.every(number => number === 5 || number === 0), `${storage.numbers}`)
    assert.deepEqual(await (await storage.copy()).keys(["documents"]), [])
  }
})

story("what waits for a document waits on, and what was to be fetched is not", async world => {
  const relay = await world.relay()
  const owner = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  const fetched = await Promise.all(Array.from({ length: 20 }, (_, n) => owner.create({ n })))
  await Promise.all(fetched.map(doc => doc.whenSynced()))
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  await until("a connection", () => repo.isConnected)
  owner.goOffline()
  await until("no connection", () => !owner.isConnected)
  const late = await owner.create({ n: 2 })
  const awaited = repo.find(late.url, { wait: true })
  await assert.rejects(repo.find(late.url), { code: "unavailable" })
  owner.goOnline()
  await late.whenSynced()
  // No answer of the relay comes before the wipe.
  const unfetched = repo.prefetch([UNKNOWN, undefined, ...fetched.map(({ url }) => url)])
  await repo.wipe({ evenUnsent: true })
  assert.deepEqual((await unfetched).map(({ error }) => error.code).sort(), ["deleted", ...fetched.map(() => "deleted"), "failed"])
  assert.equal((await awaited).doc().n, 2)
  assert.deepEqual(await repo.documents(), [late.url])
})

story("what is asked of a handle that a wipe closed is rejected with `deleted`", async world => {
  const repo = world.adopt(disposed(await Repo.open()))
  const doc = await repo.create({ text: "a" })
  const heads = await doc.heads()
  await repo.wipe({ evenUnsent: true })
  const asked = {
    heads: () => doc.heads(),
    view: () => doc.view(heads),
    diff: () => doc.diff(heads, heads),
    history: () => doc.history(),
    actor: () => doc.actor(),
    quarantined: () => doc.quarantined(),
    changeAt: () => doc.changeAt(heads, draft => (draft.n = 1)),
    restore: () => doc.restore(["text"], heads),
    cursor: () => doc.cursor(["text"], 0),
    spans: () => doc.spans(["text"]),
    clone: () => doc.clone(),
    undo: () => doc.undo(),
    whenSynced: () => doc.whenSynced(),
  }
  for (const [name, ask] of Object.entries(asked)) await assert.rejects(ask, { code: "deleted" }, name)
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

/** A tab that can be kept from finding the next host: `release()` lets it. */
async function shy(world, site, context) {
  const page = await world.plain(site, context)
  await page.evaluate(() => {
    const { postMessage } = BroadcastChannel.prototype
    let held
    BroadcastChannel.prototype.postMessage = function (message) {
      if (held && message.type === "hello" && message.page) held.push(() => postMessage.call(this, message))
      else postMessage.call(this, message)
    }
    window.hide = () => (held = [])
    window.release = () => {
      for (const say of held) say()
      held = undefined
    }
  })
  return page
}

/** A host, and two tabs that have its document open, of which the second one is hidden when the host goes. */
async function withoutHost(world) {
  const relay = await world.relay()
  const site = await world.site()
  const host = await world.plain(site)
  await open(host, { relay: relay.url })
  const url = await create(host, { n: 1 })
  await host.evaluate(() => doc.whenSynced())
  const next = await world.plain(site, host.context())
  const hidden = await shy(world, site, host.context())
  for (const page of [next, hidden]) {
    await open(page, { relay: relay.url })
    await page.evaluate(async url => {
      window.doc = await repo.find(url)
      window.told = []
      doc.on("error", ({ code }) => told.push(code))
      for (const event of ["delete", "close"]) doc.on(event, () => told.push(event))
    }, url)
  }
  await hidden.evaluate(() => hide())
  await host.close()
  return { relay, url, next, hidden }
}

story("tabs: what one edited that the next host did not hear yet is not wiped", async world => {
  const { relay, url, next, hidden } = await withoutHost(world)
  await hidden.evaluate(() => doc.change(draft => (draft.n = 2)))
  const refused = await next.evaluate(() => repo.wipe().catch(({ code, urls }) => ({ code, urls })))
  assert.deepEqual(refused, { code: "unsent", urls: [url] })
  const wiped = next.evaluate(() => repo.wipe())
  await hidden.evaluate(() => release())
  assert.deepEqual(await wiped, [], "it is waited for")
  await until("the tab to be told", () => hidden.evaluate(() => told.includes("close")))
  assert.deepEqual(await hidden.evaluate(() => told), ["delete", "close"])
  const owner = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  assert.equal((await owner.find(url)).doc().n, 2)
})

story("tabs: one that comes to the next host after a wipe has no dead handles", async world => {
  const { url, next, hidden } = await withoutHost(world)
  assert.deepEqual(await next.evaluate(() => repo.wipe()), [])
  await hidden.evaluate(() => doc.change(draft => (draft.n = 2)))
  await hidden.evaluate(() => release())
  await until("the tab to be told", () => hidden.evaluate(() => told.includes("close")))
  assert.deepEqual(await hidden.evaluate(() => told), ["deleted", "delete", "close"])
  const code = await hidden.evaluate(() => {
    try { doc.change(draft => (draft.n = 3)) } catch (error) { return error.code }
  })
  assert.equal(code, "deleted")
  assert.deepEqual(await hidden.evaluate(async url => {
    const found = await repo.find(url)
    return [found === doc, found.doc().n]
  }, url), [false, 1])
})

/** Tabs of one context that have a document of a relay open. */
async function several(world, count) {
  const relay = await world.relay()
  const site = await world.site()
  const first = await world.plain(site)
  await open(first, { relay: relay.url })
  const url = await create(first, { n: 0 })
  await first.evaluate(() => doc.whenSynced())
  const tabs = [first]
  while (tabs.length < count) {
    const tab = await world.plain(site, first.context())
    await open(tab, { relay: relay.url })
    tabs.push(tab)
  }
  return { relay, site, url, tabs }
}

/** Writes this number into the document, and gives all that are in it; again for as long as what was found is wiped. */
const write = (tab, url, number) =>
  tab.evaluate(async ([url, number]) => {
    for (;;) {
      try {
        const doc = await repo.find(url, { wait: true })
        doc.change(draft => (draft[`number ${number}`] = number))
        await doc.whenSynced()
        return Object.keys(doc.doc()).length - 1
      } catch (error) {
        if (error.code !== "deleted") throw error
      }
    }
  }, [url, number])

story("tabs: two that wipe at once both do, and all go on", async world => {
  const { url, tabs } = await several(world, 3)
  for (let round = 1; round <= 3; round++) {
    const wiped = await Promise.all(tabs.slice(1).map(tab => tab.evaluate(() => repo.wipe())))
    assert.deepEqual(wiped, [[], []])
    for (const tab of tabs) assert.deepEqual(await tab.evaluate(() => repo.documents()), [])
    assert.equal(await write(tabs[round % 3], url, round), round)
  }
})

story("tabs: one that opens, makes and finds while another wipes has what it made and found", async world => {
  const { relay, site, url, tabs } = await several(world, 2)
  for (const tab of tabs) {
    const wiped = tab.evaluate(() => repo.wipe({ evenUnsent: true }))
    const late = await world.plain(site, tab.context())
    await open(late, { relay: relay.url })
    await create(late, { n: 1 })
    const n = await late.evaluate(async url => {
      doc.change(draft => (draft.n = 2))
      await doc.whenSynced()
      return [doc.doc().n, (await repo.find(url, { wait: true })).doc().n]
    }, url)
    assert.deepEqual(n, [2, 0])
    await wiped
    await late.close()
  }
})

for (const who of ["that wipes", "with the engine"]) {
  story(`tabs: the one ${who} goes in the midst of it, and the others go on`, async world => {
    const { relay, site, url, tabs } = await several(world, 2)
    for (let round = 1; round <= 6; round++) {
      const next = await world.plain(site, tabs[0].context())
      await open(next, { relay: relay.url })
      tabs.push(next)
      // The first one has the engine.
      const going = who === "that wipes" ? tabs.pop() : tabs.shift()
      const wiping = (who === "that wipes" ? going : tabs[0]).evaluate(() => void repo.wipe({ evenUnsent: true }))
      await new Promise(resolve => setTimeout(resolve, 5 * round))
      await going.close()
      await wiping.catch(() => {})
      assert.equal(await write(tabs[1] ?? tabs[0], url, round), round)
    }
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
