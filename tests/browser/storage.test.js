// Storage by its contract, in memory and in IndexedDB, and what only a browser does to it: quota,
// eviction, other tabs, other versions, death.

import assert from "node:assert/strict"
import { test } from "node:test"
import { bundle, load } from "./lib/bundle.js"
import { story } from "./lib/world.js"

const { cases, MemoryStorage } = await load("pages/memory.js")
const script = await bundle("pages/storage.js")

for (const [name, check] of Object.entries(cases)) {
  test(`in memory: ${name}`, async () => {
    const storage = new MemoryStorage()
    await check(() => storage)
  })
}

const site = world =>
  world.site({
    "/storage.html": `<!doctype html><link rel="icon" href="data:,">
      <script type="module" src="/storage.js"></script>`,
    "/storage.js": script,
  })

const open = async (world, context, { url } = {}) => {
  const page = await world.page(`${url ?? (await site(world)).url}/storage.html`, context)
  await page.waitForFunction(() => globalThis.run !== undefined)
  return page
}

story("in a page: the contract", async world => {
  const page = await open(world)
  for (const name of Object.keys(cases)) {
    await page.evaluate(name => run(name), name).catch(error => {
      throw new Error(`${name}: ${error.message}`)
    })
  }
})

story("in a worker: the contract, and what persistence there is", async world => {
  const page = await open(world)
  for (const name of [...Object.keys(cases), "persistence"]) {
    const answer = await page.evaluate(name => {
      globalThis.worker ??= new Worker("/storage.js", { type: "module" })
      return new Promise((resolve, reject) => {
        worker.onmessage = ({ data }) => resolve(data)
        worker.onerror = ({ message }) => reject(new Error(message))
        worker.postMessage(name)
      })
    }, name)
    assert.equal(answer, "passed", name)
  }
})

/** How a call failed, as data. */
const failure = `globalThis.failure = promise => promise.then(
  value => ({ value }),
  ({ name, failure, message, cause }) => ({ name, failure, message, cause: cause?.name })
)`

story("no space left: the commit fails as a whole, and says who must act", async world => {
  const page = await open(world)
  await page.evaluate(failure)
  const found = await page.evaluate(async () => {
    const storage = new IndexedDbStorage()
    await storage.save(["kept"], new Uint8Array(1))
    const put = IDBObjectStore.prototype.put
    let puts = 0
    IDBObjectStore.prototype.put = function (...args) {
      if (++puts === 3) throw new DOMException("full", "QuotaExceededError")
      return put.apply(this, args)
    }
    const write = i => ({ put: [`new ${i}`], data: new Uint8Array(1) })
    const failed = await failure(storage.commit([{ remove: ["kept"] }, ...[1, 2, 3, 4].map(write)]))
    const kept = await storage.keys([])
    IDBObjectStore.prototype.put = put
    await storage.save(["after"], new Uint8Array(1))
    return { failed, kept, after: await storage.keys([]) }
  })
  assert.equal(found.failed.name, "StorageError")
  assert.equal(found.failed.failure, "full")
  assert.equal(found.failed.cause, "QuotaExceededError")
  assert.match(found.failed.message, /free some/)
  assert.deepEqual(found.kept, [["kept"]])
  assert.deepEqual(found.after, [["after"], ["kept"]])
})

story("the browser's own quota: the same", async world => {
  const page = await open(world)
  await page.evaluate(failure)
  const session = await page.context().newCDPSession(page)
  const origin = new URL(page.url()).origin
  const save = () =>
    page.evaluate(async () => {
      globalThis.storage ??= new IndexedDbStorage()
      const data = crypto.getRandomValues(new Uint8Array(65_536))
      const writes = Array.from({ length: 48 }, (_, i) => ({ put: ["large", `${i}`], data }))
      const outcome = await failure(storage.commit([{ put: ["small"], data }, ...writes]))
      return { outcome, keys: (await storage.keys([])).length }
    })
  await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 1_000_000 })
  const full = await save()
  assert.equal(full.outcome.failure, "full", JSON.stringify(full))
  assert.equal(full.keys, 0)
  await session.send("Storage.overrideQuotaForOrigin", { origin })
  assert.equal((await save()).keys, 49)
})

story("a connection that is lost without a word: the next call opens another", async world => {
  const page = await open(world)
  await page.evaluate(failure)
  const found = await page.evaluate(async () => {
    const storage = new IndexedDbStorage()
    await storage.save(["kept"], new Uint8Array(1))
    const { transaction } = IDBDatabase.prototype
    const lost = []
    const outcomes = []
    // At once, as a call; and later, as the end of a transaction.
    for (const isLater of [false, true]) {
      let broken
      IDBDatabase.prototype.transaction = function (...args) {
        broken ??= this
        if (this !== broken) return transaction.apply(this, args)
        lost.push(args[1])
        const error = new DOMException("connection to the server lost", "UnknownError")
        if (!isLater) throw error
        const begun = transaction.apply(this, args)
        Object.defineProperty(begun, "error", { value: error })
        setTimeout(() => begun.abort())
        return begun
      }
      outcomes.push(await failure(storage.save(["new"], new Uint8Array(1))))
      outcomes.push((await storage.keys([])).length > 0)
      IDBDatabase.prototype.transaction = transaction
    }
    return { outcomes, lost }
  })
  assert.deepEqual(found.lost, ["readwrite", "readwrite"])
  const failures = found.outcomes.map(outcome => outcome.failure ?? outcome)
  assert.deepEqual(failures, ["failed", true, "failed", true])
})

story("a database that is deleted: opened again, and its owner is told", async world => {
  const page = await open(world)
  const found = await page.evaluate(async () => {
    const storage = new IndexedDbStorage()
    let lost = 0
    storage.onlost = () => lost++
    await storage.save(["a"], new Uint8Array(1))
    await deleted("reconverge")
    const before = lost
    const keys = await storage.keys([])
    await storage.save(["b"], new Uint8Array(1))
    return { before, keys, lost, after: await storage.keys([]) }
  })
  assert.deepEqual(found, { before: 0, keys: [], lost: 1, after: [["b"]] })
})

story("data that the browser clears: opened again, and its owner is told", async world => {
  const page = await open(world)
  await page.evaluate(async () => {
    globalThis.storage = new IndexedDbStorage()
    globalThis.lost = 0
    storage.onlost = () => lost++
    await storage.save(["a"], new Uint8Array(1))
  })
  const session = await page.context().newCDPSession(page)
  const origin = new URL(page.url()).origin
  await session.send("Storage.clearDataForOrigin", { origin, storageTypes: "indexeddb" })
  const found = await page.evaluate(async () => {
    // While the browser is still at it, it may open nothing; the error says what to do.
    const whenCleared = async () => {
      for (;;) {
        try {
          return await storage.keys([])
        } catch (error) {
          if (!error.message.includes("try again")) throw error
        }
      }
    }
    const keys = await whenCleared()
    await storage.save(["b"], new Uint8Array(1))
    return { keys, lost, after: await storage.keys([]) }
  })
  assert.deepEqual(found, { keys: [], lost: 1, after: [["b"]] })
})

story("two connections in two tabs: each sees the other's commits whole", async world => {
  const { url } = await site(world)
  const context = await world.context()
  const [writer, reader] = [await open(world, context, { url }), await open(world, context, { url })]
  await reader.evaluate(() => {
    globalThis.storage = new IndexedDbStorage()
    globalThis.seen = new Set()
    globalThis.reading = (async () => {
      while (!seen.has("49,49,49")) {
        seen.add((await storage.loadRange(["round"])).map(({ data }) => data[0]).join())
      }
    })()
  })
  await writer.evaluate(async () => {
    const storage = new IndexedDbStorage()
    for (let round = 0; round < 50; round++) {
      const data = new Uint8Array([round])
      await storage.commit(["a", "b", "c"].map(part => ({ put: ["round", part], data })))
    }
  })
  const seen = await reader.evaluate(async () => {
    await reading
    return [...seen]
  })
  const halves = seen.filter(parts => parts !== "" && new Set(parts.split(",")).size !== 1)
  assert.deepEqual(halves, [])
})

story("a database of a newer version: the page must be loaded again", async world => {
  const page = await open(world)
  await page.evaluate(failure)
  const failed = await page.evaluate(async () => {
    const storage = new IndexedDbStorage()
    await storage.save(["a"], new Uint8Array(1))
    const database = await new Promise((resolve, reject) => {
      const request = indexedDB.open("reconverge", 2)
      request.onsuccess = () => resolve(request.result)
      request.onerror = () => reject(request.error)
      request.onblocked = () => reject(new Error("the older connection did not give way"))
    })
    database.close()
    return failure(storage.load(["a"]))
  })
  assert.equal(failed.failure, "outdated")
  assert.match(failed.message, /reload the page/)
})

story("a database that another page holds: blocked, then opened", async world => {
  const page = await open(world)
  await page.evaluate(failure)
  const found = await page.evaluate(async () => {
    const storage = new IndexedDbStorage({ openMsMax: 300 })
    const holder = await new Promise(resolve => {
      const request = indexedDB.open("reconverge", 1)
      request.onupgradeneeded = () => request.result.createObjectStore("chunks")
      request.onsuccess = () => resolve(request.result)
    })
    const deletion = deleted("reconverge") // waits for the holder, and all others behind it
    const failed = await failure(storage.save(["a"], new Uint8Array(1)))
    holder.close()
    await deletion
    await storage.save(["b"], new Uint8Array(1))
    return { failed, keys: await storage.keys([]) }
  })
  assert.equal(found.failed.failure, "blocked")
  assert.match(found.failed.message, /another tab/)
  assert.deepEqual(found.keys, [["b"]])
})

story("no IndexedDB: denied", async world => {
  const page = await open(world)
  await page.evaluate(failure)
  const failed = await page.evaluate(() => {
    delete globalThis.indexedDB
    Object.defineProperty(globalThis, "indexedDB", {
      get() {
        throw new DOMException("no", "SecurityError")
      },
    })
    return failure(new IndexedDbStorage().load(["a"]))
  })
  assert.equal(failed.failure, "denied")
})

story("the browser is killed: what was acknowledged is there", async world => {
  const { url } = await site(world)
  const profile = await world.profile()
  for (let round = 1; round <= 3; round++) {
    const page = await open(world, profile.context, { url })
    const found = await page.evaluate(async round => {
      const storage = new IndexedDbStorage()
      const before = await storage.keys([])
      await storage.commit([1, 2].map(i => ({ put: [`${round}`, `${i}`], data: new Uint8Array(1) })))
      return before.length
    }, round)
    assert.equal(found, 2 * (round - 1))
    await profile.kill()
    await profile.start()
  }
})

story("persistence: the browser answers, and the space is told", async world => {
  const page = await open(world)
  const found = await page.evaluate(() => requestPersistence())
  assert.equal(typeof found.persisted, "boolean")
  assert.ok(found.quotaBytes > found.usageBytes, JSON.stringify(found))
})
