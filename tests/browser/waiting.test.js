// Documents that nobody has yet: they are waited for, and a page shows all else without them.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { Repo } from "../../wasm/dist/node.js"
import { until } from "../interop/lib/wait.js"
import { story } from "./lib/world.js"

const UNKNOWN = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ"
const disposed = repo => Object.assign(repo, { dispose: () => repo.shutdown() })

story("a document that nobody has is found when its owner comes", async world => {
  const relay = await world.relay()
  const owner = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  owner.goOffline()
  const made = await owner.create({ n: 1 })
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  await assert.rejects(repo.find(made.url), { code: "unavailable" })
  const found = repo.find(made.url, { wait: true })
  owner.goOnline()
  await made.whenSynced()
  // It is asked for again when a relay is connected.
  repo.goOffline()
  await until("no connection", () => !repo.isConnected)
  repo.goOnline()
  assert.deepEqual((await found).doc(), { n: 1 })
})

story("what is asked for at once when one is online again is asked for at the relay", async world => {
  const relay = await world.relay()
  const owner = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  const made = await Promise.all([1, 2].map(n => owner.create({ n })))
  await Promise.all(made.map(doc => doc.whenSynced()))
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  const told = []
  repo.on("offline", isOffline => told.push(isOffline))
  for (const { url } of made) {
    repo.goOffline()
    await until("no connection", () => !repo.isConnected)
    repo.goOnline()
    assert.equal((await repo.find(url)).url, url)
  }
  assert.deepEqual(told, [true, false, true, false])
})

story("waiting ends with its signal and with the repo, and keeps no process", async world => {
  const relay = await world.relay()
  const repo = world.adopt(disposed(await Repo.open({ relay: relay.url })))
  const aborting = new AbortController()
  const aborted = repo.find(UNKNOWN, { wait: true, signal: aborting.signal })
  const closed = repo.find(UNKNOWN, { wait: true })
  await assert.rejects(repo.find(UNKNOWN), { code: "unavailable" })
  aborting.abort(new Error("enough"))
  await assert.rejects(aborted, /enough/)
  await assert.rejects(repo.find("nonsense", { wait: true }))
  const [rejected] = await Promise.all([assert.rejects(closed, { code: "closed" }), repo.shutdown()])
  assert.equal(rejected, undefined)

  const program = `
    import { Repo } from ${JSON.stringify(fileURLToPath(new URL("../../wasm/dist/node.js", import.meta.url)))}
    const repo = await Repo.open({ relay: ${JSON.stringify(relay.url)} })
    repo.find("${UNKNOWN}", { wait: true }).catch(error => console.log(error.code))
    await repo.find("${UNKNOWN}").catch(() => {})
    await repo.shutdown()`
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], { stdio: ["ignore", "pipe", "inherit"] })
  let said = ""
  child.stdout.on("data", data => (said += data))
  const [code] = await once(child, "exit")
  assert.deepEqual([code, said.trim()], [0, "closed"])
})
