// Bytes that are damaged in IndexedDB: they are told, never shown or sent, and the document goes on
// with what is whole of it; relays are asked for the rest. What was not sent, and hangs on what is
// damaged, is made when that is here again.

import assert from "node:assert/strict"
import { readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { until } from "../interop/lib/wait.js"
import { create, find, flush, open, synced } from "./lib/doc.js"
import { story } from "./lib/world.js"

/** Changes a bit of a stored value; gives its key. `which` chooses among the document's keys, in order. */
const damage = (page, kind, which) =>
  page.evaluate(
    async ([kind, which]) => {
      const asked = request =>
        new Promise((resolve, reject) => {
          request.onsuccess = () => resolve(request.result)
          request.onerror = () => reject(request.error)
        })
      const database = await asked(indexedDB.open("reconverge"))
      const chunks = database.transaction("chunks", "readwrite").objectStore("chunks")
      const keys = (await asked(chunks.getAllKeys())).filter(key => key[0] === "documents" && key[2] === kind)
      const key = keys.at(which)
      const value = await asked(chunks.get(key))
      value[Math.floor((value.length * 3) / 4)] ^= 4
      await asked(chunks.put(value, key))
      database.close()
      return key
    },
    [kind, which]
  )

const keysOf = (page, first) =>
  page.evaluate(
    first =>
      new Promise(resolve => {
        const opening = indexedDB.open("reconverge")
        opening.onsuccess = () => {
          const all = opening.result.transaction("chunks").objectStore("chunks").getAllKeys()
          all.onsuccess = () => {
            opening.result.close()
            resolve(all.result.filter(key => key[0] === first))
          }
        }
      }),
    first
  )

const shutdown = page => page.evaluate(() => repo.shutdown())
const edit = (page, key, value) => page.evaluate(([key, value]) => doc.change(d => (d[key] = value)), [key, value])

for (const [kind, which, hasUnsent] of [
  ["record", 0, true],
  ["row", 0, true],
  ["row", -3, true],
  ["row", -1, false],
]) {
  story(`a damaged ${kind} (${which}): told, and healed by a relay`, async world => {
    const relay = await world.relay()
    const page = await world.plain(await world.site())
    await open(page, { relay: relay.url })
    const url = await create(page, { text: "x".repeat(1000) })
    const expected = { text: "x".repeat(1000) }
    for (let n = 0; n < 8; n++) {
      await edit(page, `key ${n}`, n)
      await synced(page)
      expected[`key ${n}`] = n
    }
    const sorted = Object.fromEntries(Object.entries(expected).sort())
    await shutdown(page)
    await open(page, {})
    await find(page, url)
    await edit(page, "unsent", true)
    await flush(page)
    await shutdown(page)
    await damage(page, kind, which)

    for (let round = 0; round < 2; round++) {
      await open(page, { relay: relay.url })
      await find(page, url)
      const shows = async () => {
        const { unsent, ...shown } = await page.evaluate(() => doc.doc())
        return JSON.stringify(shown) === JSON.stringify(sorted)
      }
      await until("what the relay has", shows)
      await synced(page)
      const { unsent } = await page.evaluate(() => doc.doc())
      const problems = await page.evaluate(() => problems)
      if (round === 0) {
        assert.equal(problems.length, 1)
        assert.match(problems[0], /is damaged.*begins anew with what is whole/)
      } else {
        assert.deepEqual(problems, [])
        assert.equal(unsent, hasUnsent ? true : undefined)
      }
      await flush(page)
      await shutdown(page)
    }
    // What was damaged is kept as it was, until the document is deleted.
    assert.equal((await keysOf(page, "damaged")).length, 1)
    const other = await world.plain(await world.site())
    await open(other, { relay: relay.url })
    await find(other, url)
    assert.deepEqual(await other.evaluate(() => doc.doc()), hasUnsent ? { ...expected, unsent: true } : expected)
    await open(page, {})
    await page.evaluate(url => repo.delete(url), url)
    await shutdown(page)
    assert.deepEqual(await keysOf(page, "damaged"), [])
    assert.deepEqual(await keysOf(page, "documents"), [])
  })
}

story("a large value whose file is gone: the document begins anew with the rest, and a relay has it", async world => {
  const relay = await world.relay()
  const { url } = await world.site()
  const profile = await world.profile()
  const enter = async () => {
    const page = await world.page(`${url}/plain.html`, profile.context)
    await page.waitForFunction(() => window.reconverge !== undefined)
    await open(page, { relay: relay.url })
    return page
  }
  let page = await enter()
  const large = 300_000
  const document = await create(page, { large: Array.from({ length: large }, (_, i) => (i * 7919) % 9973).join() })
  const length = await page.evaluate(() => doc.doc().large.length)
  await page.evaluate(() => doc.change(d => (d.small = 1)))
  await synced(page)
  await page.evaluate(() => repo.shutdown())
  await profile.kill()
  const blobs = join(profile.folder, "Default/IndexedDB")
  const files = (await readdir(blobs, { recursive: true, withFileTypes: true })).filter(
    entry => entry.isFile() && entry.parentPath.includes(".blob")
  )
  assert.ok(files.length > 0, "the browser keeps large values in files")
  for (const { parentPath, name } of files) await rm(join(parentPath, name))
  await profile.start()
  page = await enter()
  await find(page, document)
  const shows = () => page.evaluate(() => [doc.doc().large?.length, doc.doc().small])
  await until("the whole document", async () => JSON.stringify(await shows()) === JSON.stringify([length, 1]), {
    seen: shows,
  })
  assert.match(await page.evaluate(() => problems.join()), /damaged/)
})
