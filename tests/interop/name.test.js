// The name by which the relay introduces itself. Apps share documents only with peers whose id says
// that they are a server, as automerge-repo's own does: `storage-server-` and something.

import assert from "node:assert/strict"
import { spawnSync } from "node:child_process"
import { converged } from "./lib/client.js"
import { silence, until } from "./lib/wait.js"
import { story } from "./lib/world.js"

// As public apps write it.
const POLICIES = {
  "includes storage-server": async peerId => peerId.includes("storage-server"),
  "starts with storage-server-": async peerId => peerId.startsWith("storage-server-"),
}

const nameOf = client => client.repo.peers[0]

for (const [rule, sharePolicy] of Object.entries(POLICIES)) {
  story(`apps that share only with a peer whose id ${rule} share with the relay`, async world => {
    const relay = await world.relay()
    const alice = await world.client("alice", relay, { sharePolicy })
    const bob = await world.client("bob", relay, { sharePolicy })
    const [a, b] = await alice.share({ by: "alice" }, bob)
    b.change(doc => (doc.by = "bob"))
    await until("alice sees bob's edit", () => a.doc().by === "bob")
    await converged([a, b])
  })
}

story("the relay's name is that of its storage, and stays when it starts again", async world => {
  const relay = await world.relay()
  const alice = await world.client("alice", relay)
  const name = nameOf(alice)
  const [digits] = (await alice.relayStorageId()).split("-")
  assert.equal(name, `storage-server-${digits}`)
  assert.match(relay.log, new RegExp(`peer_id=${name} storage_id=${await alice.relayStorageId()}`))
  await relay.kill()
  await until("alice notices", () => alice.repo.peers.length === 0)
  await relay.start()
  await alice.connected()
  assert.equal(nameOf(alice), name)
})

story("an operator names the relay, by option or environment", async world => {
  const relay = await world.relay({ environment: { RECONVERGE_PEER_ID: "storage-server-lobby" } })
  assert.equal(nameOf(await world.client("alice", relay)), "storage-server-lobby")
  await relay.terminate()
  relay.arguments = ["--peer-id", "die Küche"]
  await relay.start()
  assert.equal(nameOf(await world.client("bob", relay)), "die Küche")
})

story("a name that no peer may have is refused at the start", async world => {
  const { binary } = await world.relay()
  for (const name of ["", "two\nlines", "x".repeat(257)]) {
    const started = spawnSync(binary, ["serve", "--listen", "127.0.0.1:0", "--peer-id", name], {
      encoding: "utf8",
      timeout: 10_000,
    })
    assert.equal(started.status, 2, `${JSON.stringify(name)}: ${started.stderr}`)
    assert.match(started.stderr, /--peer-id.*1 to 256 bytes, and no control characters/s)
  }
})

story("of those who join and share nothing one is named, and nobody who shares", async world => {
  const relay = await world.relay({ arguments: ["--ping-interval-s", "1"] })
  const alice = await world.client("alice", relay)
  const bob = await world.client("bob", relay)
  const [a] = await alice.share({ n: 0 }, bob)
  const mutes = await Promise.all(["mute-1", "mute-2"].map(name => world.client(name, relay, { sharePolicy: async () => false })))
  for (const mute of mutes) mute.create({ n: 1 })
  const hints = () => relay.log.split("\n").filter(line => line.includes("neither shared nor asked"))
  await until("the hint in the log", () => hints().length > 0)
  // The other one's time has come at about the same moment, and that of those who share before.
  await silence(1_500)
  assert.equal(hints().length, 1, hints().join("\n"))
  assert.match(hints()[0], /WARN.* peer=mute-[12] .*own=storage-server-/)
  assert.match(hints()[0], /--peer-id/)
  a.change(doc => (doc.n = 1)) // and the relay goes on
  await alice.saved(a)
})
