// The engine fails in the middle of its work: a trap in WebAssembly, after which its memory is of
// no use. One document may be the cause; all others must go on.

import assert from "node:assert/strict"
import { fileURLToPath } from "node:url"
import { until } from "../interop/lib/wait.js"
import { open } from "./lib/doc.js"
import { story } from "./lib/world.js"

const TRAPS = fileURLToPath(new URL("pages/traps.js", import.meta.url))

/** A browser whose engines trap when they are told to. */
async function trapping(world) {
  const context = await world.context()
  await context.addInitScript({ path: TRAPS })
  return context
}

const arm = (page, where, plan) => page.evaluate(([where, plan]) => window.arm(where, plan), [where, plan])
const problems = page => page.evaluate(() => problems)
const reload = async page => {
  await page.reload()
  await page.waitForFunction(() => window.reconverge !== undefined)
}

for (const [where, worker] of [["worker", true], ["page", false]]) {
  story(`a document on which the engine in the ${where} traps is left alone, and the others go on`, async world => {
    const relay = await world.relay()
    const site = await world.site()
    const page = await world.plain(site, await trapping(world))
    await open(page, { relay: relay.url, worker })
    const [good, bad] = await page.evaluate(async () => {
      window.good = await repo.create({ text: "" })
      window.bad = await repo.create({ n: 1 })
      await Promise.all([good.whenSynced(), bad.whenSynced()])
      window.errors = []
      bad.on("error", error => errors.push(error.message))
      return [good.documentId, bad.documentId]
    })
    await arm(page, where, { name: "client_change", document: bad })
    await page.evaluate(() => {
      for (let i = 0; i < 20; i++) {
        good.change(d => reconverge.splice(d, ["text"], i, 0, String(i % 10)))
        if (i === 10) bad.change(d => (d.n = 2))
      }
    })
    await until("the problem to be told", async () => (await problems(page)).length > 0)
    assert.match((await problems(page))[0], new RegExp(`${bad}, which is not opened again.*on purpose`))
    await page.evaluate(() => good.change(d => reconverge.splice(d, ["text"], 20, 0, "!")))
    await page.evaluate(() => good.whenSynced())
    assert.equal(await page.evaluate(() => good.doc().text), "01234567890123456789!")
    // The page says truthfully that the engine does not have the edit.
    await until("the error of the handle", () => page.evaluate(() => errors.length > 0))
    assert.match(await page.evaluate(() => bad.status.storageError), /engine failed/)
    assert.equal(await page.evaluate(() => bad.doc().n), 2)
    const refused = await page.evaluate(async () => {
      bad.release()
      return repo.find(bad.url).catch(error => error.code)
    })
    assert.equal(refused, "damaged")
    assert.equal((await problems(page)).length, 1)

    // In a new page the engine tries again. All that was stored is there, once, and so is the edit at
    // which it trapped: the page itself kept it.
    await reload(page)
    await open(page, { relay: relay.url, worker })
    const found = await page.evaluate(async ([good, bad]) => {
      const docs = await Promise.all([repo.find(good), repo.find(bad)])
      return docs.map(doc => doc.doc())
    }, [good, bad])
    assert.deepEqual(found, [{ text: "01234567890123456789!" }, { n: 2 }])
  })

  story(`an edit that was stored when the engine in the ${where} trapped is there once`, async world => {
    const page = await world.plain(await world.site(), await trapping(world))
    await open(page, { worker })
    const id = await page.evaluate(async () => {
      window.doc = await repo.create({ text: "", list: [] })
      window.other = await repo.create({})
      await repo.flush()
      return doc.documentId
    })
    // The storage has committed, and nobody was told.
    await arm(page, where, { name: "client_stored", times: 1 })
    await page.evaluate(() => {
      other.change(d => (d.n = 1))
      doc.change(d => {
        reconverge.splice(d, ["text"], 0, 0, "once")
        d.list.push({ inner: [] })
      })
      doc.change(d => {
        reconverge.splice(d, ["text"], 4, 0, " and for all")
        d.list[0].inner.push("x")
      })
    })
    await until("the problem to be told", async () => (await problems(page)).length > 0)
    // Whichever of them it was, it is left alone; both are whole for the next page.
    await page.evaluate(() => repo.flush())
    await reload(page)
    await open(page, { worker })
    const shown = await page.evaluate(id => repo.find(id).then(doc => doc.doc()), id)
    assert.equal(shown.text.split("once").length - 1, 1, shown.text)
    assert.equal(shown.list.length, 1)
  })
}

story("repos of one page do not fall with each other", async world => {
  const page = await world.plain(await world.site(), await trapping(world))
  const ids = await page.evaluate(async () => {
    const open = () => reconverge.Repo.open({ worker: false, storage: "memory" })
    window.repos = [await open(), await open()]
    window.problems = [[], []]
    repos.forEach((repo, i) => repo.on("problem", problem => problems[i].push(problem.message)))
    window.docs = await Promise.all(repos.map(repo => repo.create({ n: 1 })))
    window.third = await repos[0].create({ n: 1 })
    return docs.map(doc => doc.documentId)
  })
  await arm(page, "page", { name: "client_change", document: ids[0] })
  await page.evaluate(() => {
    docs[1].change(d => (d.n = 2))
    third.change(d => (d.n = 2))
    docs[0].change(d => (d.n = 2))
    docs[1].change(d => (d.n = 3))
    third.change(d => (d.n = 3))
  })
  await until("both to be told", () => page.evaluate(() => problems.every(list => list.length > 0)))
  const after = await page.evaluate(async () => {
    docs[1].change(d => (d.more = true))
    await docs[1].whenSynced({ level: "local" })
    await third.whenSynced({ level: "local" })
    const stored = async doc => doc.view(await doc.heads())
    return { other: await stored(docs[1]), third: await stored(third), problems, instances: traps.instances }
  })
  assert.deepEqual(after.other, { more: true, n: 3 })
  assert.deepEqual(after.third, { n: 3 })
  assert.match(after.problems[0][0], new RegExp(ids[0]))
  assert.doesNotMatch(after.problems[1][0], /not opened again/)
  assert.equal(after.instances, 2)
})

story("the tabs of a host whose engine traps go on", async world => {
  const context = await trapping(world)
  const site = await world.site()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  for (const page of [first, second]) await open(page)
  const [good, bad] = await first.evaluate(async () => {
    window.good = await repo.create({ text: "" })
    window.bad = await repo.create({ n: 1 })
    return [good.documentId, bad.documentId]
  })
  await second.evaluate(async good => (window.good = await repo.find(good)), good)
  await arm(first, "worker", { name: "client_change", document: bad })
  const typing = second.evaluate(async () => {
    for (let i = 0; i < 100; i++) {
      good.change(d => reconverge.splice(d, ["text"], i, 0, String(i % 10)))
      await new Promise(resolve => setTimeout(resolve, 5))
    }
    await repo.flush()
  })
  await first.evaluate(() => bad.change(d => (d.n = 2)))
  await typing
  const text = "0123456789".repeat(10)
  for (const page of [first, second]) {
    const shown = () => page.evaluate(() => good.doc().text)
    await until("all that was typed", async () => (await shown()) === text, { seen: shown })
  }
})

story("a message of the relay at which the engine traps is blamed on its document", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const page = await world.plain(site, await trapping(world))
  const other = await world.plain(site)
  await open(page, { relay: relay.url })
  await open(other, { relay: relay.url })
  const [good, bad] = await other.evaluate(async () => {
    window.docs = [await repo.create({ n: 1 }), await repo.create({ n: 1 })]
    await Promise.all(docs.map(doc => doc.whenSynced()))
    return docs.map(({ documentId }) => documentId)
  })
  await page.evaluate(async ids => {
    window.docs = await Promise.all(ids.map(id => repo.find(id)))
    await Promise.all(docs.map(doc => doc.whenSynced()))
  }, [good, bad])
  await arm(page, "worker", { name: "client_frame", times: 1 })
  await other.evaluate(() => docs[1].change(d => (d.n = 2)))
  await until("the problem to be told", async () => (await problems(page)).length > 0)
  assert.match((await problems(page))[0], new RegExp(`${bad}, which is not opened again`))
  await other.evaluate(() => docs[0].change(d => (d.n = 2)))
  await until("the other document", () => page.evaluate(() => docs[0].doc().n === 2))
})

story("an engine that traps whatever it does is given up, and says so", async world => {
  const page = await world.plain(await world.site(), await trapping(world))
  await open(page, { worker: false })
  await arm(page, "page", { name: "client_poll" })
  const failed = await page.evaluate(() => repo.create({ n: 1 }).catch(error => [error.code, error.message]))
  assert.equal(failed[0], "failed")
  const later = await page.evaluate(() => repo.flush().catch(error => error.code))
  assert.equal(later, "failed")
  assert.ok((await problems(page)).length > 0)
})
