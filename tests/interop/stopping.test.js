// A stop of the relay must not break clients that lag. A stock client takes in a sync message a
// moment after it was read; if a close frame was read with it, the socket is closing by then, the
// client's answer throws in the midst of applying the change, and its document is lost to it.

import assert from "node:assert/strict"
import { converged } from "./lib/client.js"
import { Lag } from "./lib/lag.js"
import { until } from "./lib/wait.js"
import { story } from "./lib/world.js"

/** Alice edits while what the relay sends to bob, a stock client, lies on the way. */
async function lagging(world) {
  const relay = await world.relay()
  const lag = world.adopt(await new Lag(() => relay.address).open())
  const alice = await world.client("alice", relay)
  const bob = await world.client("bob", lag)
  const [a, b] = await alice.share({ edits: [] }, bob)
  b.change(doc => doc.edits.push("bob's first"))
  await bob.saved(b)
  await converged([a, b])
  lag.hold()
  a.change(doc => doc.edits.push("alice's"))
  await until("the edit is on its way to bob", () => lag.held.bytes > 0)
  await alice.saved(a)
  return { relay, lag, a, b }
}

/** The relay comes back, and bob's document is as good as before. */
async function comesBack({ relay, a, b }) {
  await relay.start()
  b.change(doc => doc.edits.push("bob's second"))
  await converged([a, b], () => a.doc().edits.length === 3)
}

story("a client that reads nothing while the relay stops goes on afterwards", async world => {
  const lagged = await lagging(world)
  const outcome = await lagged.relay.terminate()
  assert.deepEqual(outcome, { code: 0, signal: null })
  await until("the relay ended the line", () => lagged.lag.held.ended)
  lagged.lag.release()
  await comesBack(lagged)
})

story("a client that lags while the relay stops goes on afterwards", async world => {
  const lagged = await lagging(world)
  const before = lagged.lag.held.bytes
  const stopped = lagged.relay.terminate()
  // What the relay says when it ends the connection comes with the edit.
  await until("the relay says something more", () => lagged.lag.held.bytes > before)
  lagged.lag.release()
  assert.deepEqual(await stopped, { code: 0, signal: null })
  await comesBack(lagged)
})
