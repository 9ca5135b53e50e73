// Several connections under one peer id: a client that comes back while the relay still holds its
// old connection for alive, and two clients that call themselves the same.

import assert from "node:assert/strict"
import { once } from "node:events"
import { connect, createServer } from "node:net"
import { converged } from "./lib/client.js"
import { silence, until } from "./lib/wait.js"
import { story } from "./lib/world.js"

const SETTLE_MS = 500

// A line below WebSocket. When it goes dead, the client sees it break; the relay hears nothing more,
// not even an end.
class Wire {
  #pairs = new Set()

  async open(relay) {
    const { hostname, port } = new URL(relay.url)
    this.server = createServer({ allowHalfOpen: true }, client => {
      const line = connect({ host: hostname, port, allowHalfOpen: true })
      this.#pairs.add({ client, line })
      for (const socket of [client, line]) socket.on("error", () => {})
      client.on("data", data => line.write(data))
      line.on("data", data => client.destroyed || client.write(data))
    })
    this.server.listen(0, "127.0.0.1")
    await once(this.server, "listening")
    return this
  }

  get url() {
    return `ws://127.0.0.1:${this.server.address().port}`
  }

  /** How many connections to the relay there have been. */
  get connections() {
    return this.#pairs.size
  }

  goDead() {
    for (const { client } of this.#pairs) client.destroy()
  }

  async dispose() {
    this.server.close()
    for (const { client, line } of this.#pairs) {
      client.destroy()
      line.destroy()
    }
  }
}

story("a client whose line died without a word comes back at once, and nothing is lost", async world => {
  const relay = await world.relay()
  const wire = world.adopt(await new Wire().open(relay))
  const alice = await world.client("alice", wire)
  const bob = await world.client("bob", relay)
  const [a, b] = await alice.share({ n: 0 }, bob)

  wire.goDead()
  await until("alice notices", () => alice.repo.peers.length === 0)
  a.change(doc => (doc.n = 1))
  const since = performance.now()
  await alice.connected()
  world.tell(`back after ${Math.round(performance.now() - since)} ms, of which 500 are the adapter's pause`)
  assert.equal(wire.connections, 2)
  await alice.saved(a)
  b.change(doc => (doc.m = 1))
  await converged([a, b], () => a.doc().m === 1 && b.doc().n === 1)

  // The relay closes the old one when it has not answered, and only that one.
  await until("the old one is closed", () => relay.log.includes("replaced by a new connection"))
  assert.equal(alice.disconnects, 1)
  a.change(doc => (doc.n = 2))
  await alice.saved(a)
  await converged([a, b])
})

story("two clients of one name keep their connections, and all agree", async world => {
  const relay = await world.relay()
  const bob = await world.tapped("bob", relay)
  const first = await world.tapped("twin", relay)
  const [b, a] = await bob.share({ by: {} }, first)
  const second = await world.tapped("twin", relay)
  const c = await second.find(b.url)
  for (let n = 0; n < 20; n++) {
    a.change(doc => (doc.by.first = n))
    c.change(doc => (doc.by.second = n))
    b.change(doc => (doc.by.bob = n))
    if (n % 5 === 0) await silence(20)
  }
  await Promise.all([first.saved(a), second.saved(c), bob.saved(b)])
  await converged([a, b, c])
  assert.deepEqual({ ...c.doc().by }, { first: 19, second: 19, bob: 19 })

  // Presence of both reaches Bob once, and his reaches both; nothing goes round.
  const heard = []
  b.on("ephemeral-message", ({ message }) => heard.push(message.from))
  const taps = [bob, first, second].map(({ tap }) => tap)
  for (const tap of taps) tap.reset()
  a.broadcast({ from: "first" })
  c.broadcast({ from: "second" })
  b.broadcast({ from: "bob" })
  await until("bob hears both", () => heard.length === 2, { seen: () => heard })
  await until("both hear bob", () => taps.slice(1).every(tap => presence(tap.down) === 1))
  await silence(SETTLE_MS)
  assert.deepEqual(heard.sort(), ["first", "second"])
  assert.deepEqual(taps.map(tap => presence(tap.down)), [2, 1, 1])

  // The relay has asked the first when the second came, and it answered.
  await silence(5_500)
  assert.equal(first.disconnects + second.disconnects + bob.disconnects, 0)
  a.change(doc => (doc.by.first = 20))
  await first.saved(a)
  await converged([a, b, c])
})

const presence = messages => messages.filter(({ type }) => type === "ephemeral").length
