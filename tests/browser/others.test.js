// Tabs with one database and different relays and tokens: one of them has the engine, and it
// connects for all of them, with the tokens that they give.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { decode, encode } from "cbor-x"
import { WebSocket, WebSocketServer } from "ws"
import { becomes, create, find, open, synced } from "./lib/doc.js"
import { Gate } from "./lib/gate.js"
import { story } from "./lib/world.js"

const PACKAGE = new URL("../../wasm/dist/node.js", import.meta.url).href

const REFUSED = /401|WebSocket connection/

async function setting(world, ...valid) {
  const relay = await world.relay()
  const gates = []
  for (const tokens of valid) gates.push(await world.adopt(new Gate(relay, tokens)).start())
  const [site, context] = [await world.site(), await world.context()]
  return { gates, context, site, relay, tab: () => world.plain(site, context) }
}

/** Opens a repo whose token is what the function of this source gives; `asked` has its arguments. */
const openWith = (page, source, options) =>
  page.evaluate(
    async ([source, options]) => {
      window.asked = []
      const give = eval(source)
      const token = relay => {
        asked.push(relay)
        return give(asked.length)
      }
      window.repo = await reconverge.Repo.open({ ...options, token })
    },
    [source, options]
  )

const asked = page => page.evaluate(() => asked.length)
const connections = page => page.evaluate(() => repo.connections)

/** Waits until a page tells exactly these relays, in these states. */
async function becomesConnected(pages, ...expected) {
  const wanted = JSON.stringify(expected.map(([{ url }, state = "connected"]) => [url, state]).sort())
  for (const page of pages) {
    const is = async () => JSON.stringify((await connections(page)).map(({ relay, state }) => [relay, state]).sort()) === wanted
    await until(`the connections ${wanted}`, is, { seen: () => connections(page) })
  }
}

const crash = async page => {
  const cdp = await page.context().newCDPSession(page)
  const crashed = page.waitForEvent("crash")
  cdp.send("Page.crash").catch(() => {}) // the answer dies with the page
  await crashed
}

for (const worker of [true, false]) {
  story(`the relays of all tabs are connected, as long as they are open (${worker ? "worker" : "page"})`, async world => {
    const { gates: [near, far], relay, tab, site } = await setting(world, undefined, undefined)
    const other = await world.relay()
    const beyond = await world.adopt(new Gate(other)).start()
    const first = await tab()
    await open(first, { worker, relay: near.url })
    const url = await create(first, { by: "first" })
    await synced(first)
    const second = await tab()
    await open(second, { worker, relay: [beyond.url, `${far.url}/#there`] })
    await becomesConnected([first, second], [near], [far], [beyond])
    await first.evaluate(() => doc.whenSynced({ level: "replicated" }))
    const reader = await world.plain(site)
    await open(reader, { relay: other.url })
    await find(reader, url)
    await becomes(reader, { by: "first" })
    // It goes with what only it wanted, and comes back.
    await second.close()
    await becomesConnected([first], [near])
    await until("nobody inside", () => far.inside === 0 && beyond.inside === 0)
    await first.evaluate(() => doc.change(d => (d.by = "again")))
    await first.evaluate(() => doc.whenSynced({ level: "replicated" }))
    const third = await tab()
    await open(third, { worker, relay: beyond.url })
    await becomesConnected([first, third], [near], [beyond])
    await first.evaluate(() => doc.whenSynced({ level: "replicated" }))
    await becomes(reader, { by: "again" })
    assert.ok(relay)
  })
}

story("documents that nobody opened go to the relay of another tab, too", async world => {
  const { gates: [near], tab, site } = await setting(world, undefined)
  const first = await tab()
  await open(first, { relay: near.url })
  const url = await create(first, { old: true })
  await synced(first)
  await first.close()
  const [second, third] = [await tab(), await tab()]
  await open(second, { relay: near.url })
  const other = await world.relay()
  await open(third, { relay: other.url })
  const reader = await world.plain(site)
  await open(reader, { relay: other.url })
  const found = () => reader.evaluate(url => repo.find(url).then(doc => doc.doc().old, () => false), url)
  await until("the document at the other relay", found)
})

story("a tab with another token lets all in after the first was refused", async world => {
  world.expect(REFUSED)
  const { gates: [gate], tab } = await setting(world, ["new"])
  const first = await tab()
  await open(first, { relay: gate.url, token: "old" })
  await becomesConnected([first], [gate, "refused"])
  assert.match((await connections(first))[0].reason, /401.*your token is not valid/)
  await create(first, {})
  await until("the status refused", () => first.evaluate(() => doc.status.state === "refused"))
  // Without one, and with the same one: nothing changes.
  const [second, third] = [await tab(), await tab()]
  await open(second, { relay: `${gate.url}/`, token: "" })
  await open(third, { relay: gate.url, token: "old" })
  await until("another try", () => gate.shown.length > 1)
  await becomesConnected([first, second, third], [gate, "refused"])
  const fourth = await tab()
  await open(fourth, { relay: gate.url, token: "new" })
  await becomesConnected([first, second, third, fourth], [gate])
  await synced(first)
  assert.equal(gate.shown.at(-1), "new")
  assert.equal(gate.inside, 1)
  // The newest one is tried when a connection is made again, and then the one before.
  const fifth = await tab()
  await open(fifth, { relay: gate.url, token: "newest" })
  await becomesConnected([fifth], [gate])
  gate.cut()
  await until("the older token", () => gate.inside === 1 && gate.shown.slice(-2).join() === "newest,new")
})

story("a function is asked whenever a connection is about to be made, in the tab that is the newest", async world => {
  world.expect(REFUSED)
  const { gates: [gate], tab } = await setting(world, ["1", "2", "3", "b1", "b2"])
  const first = await tab()
  await openWith(first, "n => String(n)", { relay: gate.url })
  await becomesConnected([first], [gate])
  assert.deepEqual(await first.evaluate(() => asked), [gate.url])
  gate.cut()
  await until("the second connection", () => gate.shown.length === 2 && gate.inside === 1)
  const second = await tab()
  await openWith(second, "async n => `b${n}`", { relay: gate.url })
  assert.equal(await asked(second), 0)
  gate.cut()
  await until("the token of the other tab", () => gate.shown.at(-1) === "b1" && gate.inside === 1)
  await second.close()
  await until("the other tab to be gone", async () => (await connections(first)).length === 1)
  gate.cut()
  await until("the token of the tab that is left", () => gate.shown.at(-1) === "3" && gate.inside === 1)
  assert.deepEqual(gate.shown, ["1", "2", "b1", "3"])
  assert.equal(await asked(first), 3)
})

story("a function that gave a token which is refused is asked for another", async world => {
  world.expect(REFUSED)
  const { gates: [gate], tab } = await setting(world, ["valid"])
  const page = await tab()
  await openWith(page, "n => n < 4 ? 'expired' : 'valid'", { relay: gate.url })
  await becomesConnected([page], [gate])
  assert.deepEqual(gate.shown, ["expired", "valid"])
})

story("a function that fails is told of, and asked again; one that never answers keeps nobody out", async world => {
  const { gates: [gate, other], tab } = await setting(world, ["3"], ["good"])
  const page = await tab()
  await page.evaluate(() => (window.reasons = []))
  await page.evaluate(
    async relay => {
      let count = 0
      const token = () => {
        count += 1
        if (count === 1) throw new Error("not signed in")
        return count === 2 ? 2 : "3"
      }
      window.repo = await reconverge.Repo.open({ relay, token })
      repo.on("connection", ({ reason }) => reason && reasons.push(reason))
    },
    gate.url
  )
  await becomesConnected([page], [gate])
  const [reason] = (await page.evaluate(() => reasons)).slice(-1)
  assert.match(reason, /there is no token: the function gave no string/)
  assert.deepEqual(gate.shown, ["3"])
  const second = await tab()
  await open(second, { relay: other.url, token: "good" })
  await becomesConnected([page, second], [gate], [other])
  const third = await tab()
  await openWith(third, "() => new Promise(() => {})", { relay: other.url })
  other.cut()
  await until("the token of another tab", () => other.shown.length === 2 && other.inside === 1)
  assert.equal(await asked(third), 1)
})

story("a function that never answered once is asked again", async world => {
  const { gates: [gate], tab } = await setting(world, ["good"])
  const pages = [await tab(), await world.plain(await world.site())]
  for (const page of pages) await openWith(page, "n => n === 1 ? new Promise(() => {}) : 'good'", { relay: gate.url })
  // Else it would be asked for the first time after that.
  await until("it to be asked", async () => (await asked(pages[1])) === 1)
  await pages[1].evaluate(() => {
    repo.goOffline()
    repo.goOnline()
  })
  await becomesConnected([pages[1]], [gate])
  await until("the other to be asked again", async () => (await asked(pages[0])) > 1, { ms: 40_000 })
  await becomesConnected([pages[0]], [gate])
})

story("the next host connects what the tabs want that are left, and asks their functions", async world => {
  world.expect(/the page crashed/)
  const { gates: [near, far, third], tab } = await setting(world, undefined, ["1", "2", "3"], undefined)
  const host = await tab()
  await open(host, { relay: near.url })
  await create(host, {})
  const [next, other, last] = [await tab(), await tab(), await tab()]
  await open(next, { relay: [] })
  await openWith(other, "n => String(n)", { relay: far.url })
  await open(last, { relay: third.url })
  await becomesConnected([host, next, other, last], [near], [far], [third])
  await crash(host)
  await becomesConnected([next, other, last], [far], [third])
  await until("only the new host inside", () => near.inside === 0 && far.inside === 1 && third.inside === 1)
  assert.equal(await asked(other), 2)
  // One that dies without a word takes its relay with it.
  await crash(last)
  await becomesConnected([next, other], [far])
  await next.close()
  await until("a third connection", () => far.shown.length === 3)
  await becomesConnected([other], [far])
  assert.equal(third.inside, 0)
})

story("a tab that is reloaded, and five that close at once", async world => {
  const open5 = [1, 2, 3, 4, 5]
  const { gates, tab } = await setting(world, ...open5.map(() => undefined))
  const tabs = []
  for (const gate of gates) {
    const page = await tab()
    await open(page, { relay: gate.url, name: " ü/\u{1F600}?#%" })
    tabs.push(page)
  }
  await becomesConnected(tabs, ...gates.map(gate => [gate]))
  await tabs[4].reload()
  await tabs[4].waitForFunction(() => window.reconverge !== undefined)
  await open(tabs[4], { relay: gates[4].url, name: " ü/\u{1F600}?#%" })
  await becomesConnected(tabs, ...gates.map(gate => [gate]))
  await Promise.all(tabs.slice(0, 4).map(page => page.close()))
  await becomesConnected([tabs[4]], [gates[4]])
  await until("the others to be gone", () => gates.slice(0, 4).every(({ inside }) => inside === 0))
})

story("offline is so for all tabs, whichever said it, and whichever is the host", async world => {
  const { gates: [near, far], tab } = await setting(world, undefined, undefined)
  const [first, second, third] = [await tab(), await tab(), await tab()]
  await open(first, { relay: near.url })
  await open(second, {})
  await becomesConnected([second], [near])
  await first.evaluate(() => repo.goOffline())
  await becomesConnected([second], [near, "offline"])
  await open(third, { relay: far.url })
  const isOffline = page => until("offline by wish", () => page.evaluate(() => repo.isOffline))
  for (const page of [first, second, third]) await isOffline(page)
  await first.close()
  await until("the next host", () => third.evaluate(() => repo.flush().then(() => true)))
  assert.equal(near.inside + far.inside, 0)
  await second.evaluate(() => repo.goOnline())
  await becomesConnected([second, third], [far])
  for (const page of [second, third]) assert.equal(await page.evaluate(() => repo.isOffline), false)
})

story("a tab with its documents in memory has its own relay and token", async world => {
  world.expect(REFUSED)
  const { gates: [gate], tab } = await setting(world, ["mine"])
  const [first, second] = [await tab(), await tab()]
  await open(first, { relay: gate.url, token: "not mine" })
  await open(second, { relay: gate.url, token: "mine", storage: "memory" })
  await becomesConnected([second], [gate])
  await becomesConnected([first], [gate, "refused"])
})

story("in Node.js a function gives the token of each connection", async world => {
  const { gates: [gate] } = await setting(world, ["1", "2"])
  const { Repo } = await import(PACKAGE)
  let count = 0
  const repo = await Repo.open({ relay: [gate.url, `${gate.url}/`], token: () => String(++count) })
  world.adopt({ dispose: () => repo.shutdown() })
  await until("the connection", () => repo.connections[0]?.state === "connected")
  assert.equal(repo.connections.length, 1)
  gate.cut()
  await until("another connection", () => gate.shown.length === 2 && repo.connections[0].state === "connected")
})

/** Says no in its own way to all but who has the token "good", whom it lets through to the relay. */
async function refuser(world, refuse) {
  const relay = await world.relay()
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, verifyClient: refuse.verify })
  server.on("connection", (near, { url }) => {
    near.on("error", () => {})
    if (new URL(url, "http://gate").searchParams.get("token") !== "good") return refuse.admit(near)
    const far = new WebSocket(relay.url)
    const unsent = []
    const pass = bytes => far.send(bytes)
    near.on("message", bytes => (far.readyState === WebSocket.OPEN ? pass(bytes) : unsent.push(bytes)))
    far.on("open", () => unsent.forEach(pass))
    far.on("message", bytes => near.send(bytes))
    far.on("error", () => {})
    near.on("close", () => far.terminate())
  })
  await new Promise(resolve => server.once("listening", resolve))
  world.adopt({
    dispose: () => {
      for (const client of server.clients) client.terminate()
      return new Promise(resolve => server.close(resolve))
    },
  })
  return `ws://127.0.0.1:${server.address().port}`
}

const closing = code => ({ admit: socket => socket.close(code, "sign in again") })
const REFUSALS = {
  "HTTP 401": { verify: ({ req }, answer) => answer(/good/.test(req.url), 401), reason: /\(HTTP 401\)/, isForNode: true },
  "an error instead of letting in": {
    admit: socket =>
      socket.once("message", join => {
        const { senderId: targetId } = decode(join)
        socket.send(encode({ type: "error", senderId: "gate", targetId, message: "sign in again" }))
      }),
    reason: /^sign in again$/,
  },
  "code 4401, much later": {
    admit: socket =>
      socket.once("message", join => {
        const { senderId: targetId } = decode(join)
        const peer = { type: "peer", senderId: "gate", targetId, peerMetadata: {}, selectedProtocolVersion: "1" }
        socket.send(encode(peer), () => socket.close(4401, "sign in again"))
      }),
    reason: /\(4401\): sign in again$/,
  },
}
for (const code of [1008, 3000, 3003, 4401, 4403]) {
  REFUSALS[`code ${code}`] = { ...closing(code), reason: new RegExp(`\\(${code}\\): sign in again$`) }
}

for (const [how, refuse] of Object.entries(REFUSALS)) {
  story(`who is refused by ${how} is told so, and comes with another token`, async world => {
    const url = await refuser(world, refuse)
    const start = async ({ Repo }, relay) => {
      globalThis.seen = []
      globalThis.may = false
      globalThis.repo = await Repo.open({ relay, token: () => (may ? "good" : "bad") })
      repo.on("connection", ({ state, reason }) => seen.push([state, reason]))
      globalThis.doc = await repo.create({})
    }
    const page = refuse.isForNode ? undefined : await world.plain(await world.site())
    const run = (action, ...args) => (page ? page.evaluate(action, ...args) : action(...args))
    if (page) await page.evaluate(([start, url]) => eval(start)(reconverge, url), [String(start), url])
    else await start(await import(PACKAGE), url)
    if (!page) world.adopt({ dispose: () => repo.shutdown() })
    const refused = () => run(() => seen.filter(([state]) => state === "refused"))
    await until("the refusal", async () => (await refused()).length > 0, { seen: () => run(() => seen) })
    for (const [, reason] of await refused()) assert.match(reason, refuse.reason)
    await until("a refused document", () => run(() => doc.status.state === "refused" || doc.status.reason))
    await run(() => void (globalThis.may = true))
    await until("the connection", () => run(() => repo.connections[0].state === "connected"))
    await run(() => doc.whenSynced())
  })
}

for (const options of [{ token: 1 }, { token: null }]) {
  story(`${JSON.stringify(options)} is refused`, async world => {
    const page = await world.plain(await world.site())
    const message = await page.evaluate(o => reconverge.Repo.open(o).catch(error => error.message), options)
    assert.equal(message, 'the option "token" is a string or a function')
  })
}

story("a connection that is dead though nothing is owed is noticed within 45 s", async world => {
  world.expect(/WebSocket is closed before/)
  const { gates: [gate], tab } = await setting(world, undefined)
  const page = await tab()
  // In the page, whose clock a test can set.
  await page.clock.install()
  await open(page, { worker: false, relay: gate.url })
  await create(page, {})
  await synced(page)
  const states = () => connections(page).then(all => all.map(({ state }) => state))
  // Silence alone is no death: the relay is asked, and answers.
  for (let i = 0; i < 5; i++) {
    const before = gate.heard
    await page.clock.runFor(21_000)
    await until("the relay to answer", () => gate.heard > before)
    assert.deepEqual(await states(), ["connected"])
  }
  assert.equal(gate.shown.length, 1)
  gate.silent = true
  await page.clock.runFor(45_000)
  await until("the connection to be given up", async () => (await states())[0] !== "connected")
  gate.silent = false
  await page.clock.runFor(10_000)
  await until("the next connection", () => gate.shown.length > 1)
})
