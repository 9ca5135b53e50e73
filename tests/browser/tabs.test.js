// Tabs of one origin share one engine, in the tab that has the lock. Here that tab ends in every way
// that it can, while others type.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { becomes, create, find, flush, open, show, synced } from "./lib/doc.js"
import { story } from "./lib/world.js"

const text = page => page.evaluate(() => doc.doc().text)

/** Types digits at the end of `doc.text`, one by one, until there are so many or `stop()` is called. */
const typeDigits = (page, count, pauseMs = 4) =>
  page.evaluate(
    async ([count, pauseMs]) => {
      for (let n = doc.doc().text.length; n < count; n++) {
        doc.change(d => reconverge.splice(d, ["text"], n, 0, String(n % 10)))
        await new Promise(resolve => setTimeout(resolve, pauseMs))
      }
      await doc.whenSynced({ level: "local" })
    },
    [count, pauseMs]
  )

const digits = count => Array.from({ length: count }, (_, n) => n % 10).join("")

const historyOf = page => page.evaluate(() => doc.history())

/** No two changes have the same place in the history of their author. */
function assertUnique(history) {
  const places = history.map(({ actor, seq }) => `${actor}@${seq}`)
  assert.equal(new Set(places).size, places.length, "an actor made two changes with one number")
}

const crash = async page => {
  const cdp = await page.context().newCDPSession(page)
  const crashed = page.waitForEvent("crash")
  cdp.send("Page.crash").catch(() => {}) // the answer dies with the page
  await crashed
}

story("a host's tab that crashes while another tab types loses and doubles nothing", async world => {
  world.expect(/the page crashed/)
  const relay = await world.relay()
  const site = await world.site()
  const context = await world.context()
  const tab = async () => {
    const page = await world.plain(site, context)
    await open(page, { relay: relay.url })
    return page
  }
  let host = await tab()
  const url = await create(host, { text: "" })
  await flush(host)
  const rounds = 8
  for (let round = 1; round <= rounds; round++) {
    const typist = await tab()
    await find(typist, url)
    const before = digits((round - 1) * 60)
    await until("what was typed before", async () => (await text(typist)) === before)
    const typing = typeDigits(typist, round * 60)
    await until("some typing", async () => (await text(typist)).length > before.length + 5 + round * 5)
    await crash(host)
    await typing
    assert.equal(await text(typist), digits(round * 60))
    host = typist
  }
  await synced(host)
  const other = await world.plain(site)
  await open(other, { relay: relay.url })
  await find(other, url)
  await becomes(other, { text: digits(rounds * 60) })
  assert.deepEqual(await other.evaluate(() => doc.heads()), await host.evaluate(() => doc.heads()))
  assertUnique(await historyOf(other))
}, { ms: 120_000 })

for (const worker of [true, false]) {
  story(`a host's tab that is left and come back to at once goes on (${worker ? "worker" : "page"})`, async world => {
    const site = await world.site()
    const context = await world.context()
    const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
    await open(first, { worker })
    const url = await create(first, { text: "" })
    await open(second, { worker })
    await find(second, url)
    for (let round = 0; round < 5; round++) {
      for (const page of [first, second]) {
        await page.evaluate(() => {
          for (const type of ["pagehide", "pageshow"]) {
            dispatchEvent(new PageTransitionEvent(type, { persisted: true }))
            doc.change(d => reconverge.splice(d, ["text"], d.text.length, 0, "x"))
          }
        })
        await page.evaluate(() => doc.whenSynced({ level: "local" }))
      }
    }
    for (const page of [first, second]) await becomes(page, { text: "x".repeat(20) })
  })
}

story("a tab that its browser keeps says goodbye, and is here again when somebody comes back", async world => {
  const site = await world.site()
  const context = await world.context()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  await open(first)
  const url = await create(first, {})
  await open(second)
  await find(second, url)
  for (const page of [first, second]) {
    await page.evaluate(() => {
      window.presence = new reconverge.Presence(doc, { state: {} })
    })
  }
  const peers = page => page.evaluate(() => presence.peers.size)
  const see = count => until(`${count} others`, async () => (await peers(first)) === count, { seen: () => peers(first) })
  const turns = type => second.evaluate(type => void dispatchEvent(new PageTransitionEvent(type, { persisted: true })), type)
  await see(1)
  await turns("pagehide")
  await see(0)
  await turns("pageshow")
  await see(1)
})

story("three tabs go on when the host closes twice in a row", async world => {
  const site = await world.site()
  const context = await world.context()
  const tabs = []
  for (let i = 0; i < 3; i++) {
    tabs.push(await world.plain(site, context))
    await open(tabs[i])
  }
  const url = await create(tabs[0], { text: "", by: {} })
  for (const page of tabs.slice(1)) await find(page, url)
  const typing = typeDigits(tabs[2], 200)
  await until("some typing", async () => (await text(tabs[2])).length > 30)
  await tabs[1].evaluate(() => doc.change(d => (d.by.second = true)))
  await tabs[0].close()
  await tabs[1].evaluate(() => doc.whenSynced({ level: "local" }))
  await tabs[1].close()
  await typing
  const expected = { by: { second: true }, text: digits(200) }
  await becomes(tabs[2], expected)
  const fourth = await world.plain(site, context)
  await open(fourth)
  await find(fourth, url)
  assert.deepEqual(await show(fourth), expected)
})

story("a tab whose host went before it could be asked still gets its answers", async world => {
  const site = await world.site()
  const context = await world.context()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  for (const page of [first, second]) await open(page)
  const url = await create(first, { text: "" })
  await find(second, url)
  await flush(first)
  const answers = second.evaluate(async () => {
    const until = performance.now() + 1500
    const found = new Set()
    while (performance.now() < until) {
      const asked = [doc.heads(), doc.history(), doc.cursor(["text"], 0), doc.whenSynced({ level: "local" })]
      const results = await Promise.allSettled(asked)
      for (const { status, reason } of results) found.add(reason ? `${status}: ${reason}` : status)
    }
    return [...found]
  })
  await first.close()
  assert.deepEqual(await answers, ["fulfilled"])
})

story("a page that is reloaded while it types has all that was stored", async world => {
  const relay = await world.relay()
  const page = await world.plain(await world.site(), await world.context())
  let stored = 0
  await page.exposeFunction("acknowledged", n => (stored = Math.max(stored, n)))
  let url
  for (let reload = 0; reload < 20; reload++) {
    await open(page, { relay: relay.url })
    if (url) await find(page, url)
    else url = await create(page, { text: "" })
    const found = await text(page)
    assert.ok(found.length >= stored, `reload ${reload}: found ${found.length} where ${stored} were stored`)
    assert.equal(found, digits(found.length))
    await page.evaluate(() => {
      const write = async () => {
        for (;;) {
          const n = doc.doc().text.length
          doc.change(d => reconverge.splice(d, ["text"], n, 0, String(n % 10)))
          await doc.whenSynced({ level: "local" })
          await acknowledged(n + 1)
        }
      }
      write().catch(() => {})
    })
    const goal = stored + 3 + (reload % 5)
    await until("some typing", () => stored >= goal)
    await page.reload()
    await page.waitForFunction(() => window.reconverge !== undefined)
  }
}, { ms: 120_000 })

story("a duplicated tab makes changes of its own", async world => {
  const relay = await world.relay()
  const site = await world.site()
  const context = await world.context()
  const first = await world.plain(site, context)
  await first.evaluate(() => sessionStorage.setItem("kept", "by the tab"))
  await open(first, { relay: relay.url })
  const url = await create(first, { text: "", first: 0, second: 0 })
  const opened = context.waitForEvent("page")
  // What it opens begins with a copy of its session storage, as a duplicated tab does.
  await first.evaluate(() => void window.open(location.href))
  const second = await opened
  await second.waitForFunction(() => window.reconverge !== undefined)
  assert.equal(await second.evaluate(() => sessionStorage.getItem("kept")), "by the tab")
  await open(second, { relay: relay.url })
  await find(second, url)
  const count = (page, key) =>
    page.evaluate(key => {
      for (let i = 0; i < 50; i++) doc.change(d => (d[key] += 1))
      return repo.peerId
    }, key)
  const peers = await Promise.all([count(first, "first"), count(second, "second")])
  assert.notEqual(peers[0], peers[1])
  for (const page of [first, second]) await becomes(page, { first: 50, second: 50, text: "" })
  assertUnique(await historyOf(second))
})

story("two browsers of one copied profile edit offline, and lose nothing", async world => {
  world.expect(/WebSocket connection to|ERR_CONNECTION_REFUSED/)
  const relay = await world.relay()
  const site = await world.site()
  const original = await world.profile()
  const page = await world.plain(site, original.context)
  await open(page, { relay: relay.url })
  const url = await create(page, { text: "", list: [] })
  await typeDigits(page, 10)
  await synced(page)
  await flush(page)
  await original.kill()
  await relay.kill()
  const copy = await world.profile({ from: original })
  await original.start()
  const tabs = {}
  for (const [name, { context }] of Object.entries({ original, copy })) {
    tabs[name] = await world.plain(site, context)
    await open(tabs[name], { relay: relay.url })
    await find(tabs[name], url)
    await tabs[name].evaluate(async name => {
      for (let i = 0; i < 30; i++) doc.change(d => d.list.push(`${name} ${i}`))
      await doc.whenSynced({ level: "local" })
    }, name)
  }
  await relay.start()
  for (const tab of Object.values(tabs)) await tab.evaluate(() => dispatchEvent(new Event("online")))
  const lists = async () => {
    const found = []
    for (const tab of Object.values(tabs)) found.push((await show(tab)).list)
    return found
  }
  await until("both to have all", async () => (await lists()).every(list => list.length === 60), { seen: lists })
  const [one, other] = await lists()
  assert.deepEqual(one, other)
  for (const name of ["original", "copy"]) {
    assert.deepEqual(one.filter(line => line.startsWith(name)), Array.from({ length: 30 }, (_, i) => `${name} ${i}`))
  }
  assertUnique(await historyOf(tabs.copy))
}, { ms: 120_000 })

story("tabs see each other's presence while the relay is down", async world => {
  world.expect(/WebSocket connection to/)
  const relay = await world.relay()
  const site = await world.site()
  const context = await world.context()
  await relay.kill()
  const tabs = []
  let url
  for (const name of ["one", "two", "three"]) {
    const page = await world.plain(site, context)
    await open(page, { relay: relay.url })
    if (url) await find(page, url)
    else url = await create(page, { text: "" })
    await page.evaluate(name => {
      window.presence = new reconverge.Presence(doc, { state: { name, at: 0 } })
    }, name)
    tabs.push(page)
  }
  const seen = page =>
    page.evaluate(() => [...presence.peers.values()].map(({ state }) => `${state.name} at ${state.at}`).sort())
  const sees = (page, ...names) =>
    until(`presence of ${names}`, async () => String(await seen(page)) === String(names), { seen: () => seen(page) })
  await sees(tabs[0], "three at 0", "two at 0")
  await sees(tabs[2], "one at 0", "two at 0")
  await tabs[1].evaluate(() => presence.set({ at: 7 }))
  await sees(tabs[0], "three at 0", "two at 7")
  await sees(tabs[2], "one at 0", "two at 7")
  // The host goes, without a relay to tell it.
  await tabs[0].close({ runBeforeUnload: false })
  await tabs[1].evaluate(() => doc.whenSynced({ level: "local" }))
  await tabs[2].evaluate(() => presence.set({ at: 8 }))
  await until("what two sees of three", async () => (await seen(tabs[1])).includes("three at 8"), { seen: () => seen(tabs[1]) })
})
