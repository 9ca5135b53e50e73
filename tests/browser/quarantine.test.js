// A change that makes no document, which a relay passes on before it checks it.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import * as Automerge from "@automerge/automerge"
import { generateAutomergeUrl, parseAutomergeUrl } from "@automerge/automerge-repo"
import { RawPeer } from "../interop/lib/raw.js"
import { until } from "../interop/lib/wait.js"
import { syncMessage } from "../interop/lib/wire.js"
import { becomesStatus, find, open, show } from "./lib/doc.js"
import { story } from "./lib/world.js"

// Made by tests/src/forge.rs, as a test of tests/quarantine.rs asserts.
const pinned = JSON.parse(readFileSync(new URL("lib/unsound.json", import.meta.url)))
const bytes = digits => Uint8Array.from(Buffer.from(digits, "hex"))
const [first, unsound, honest] = [pinned.first.map(bytes), bytes(pinned.unsound), bytes(pinned.honest)]
const hash = change => Automerge.decodeChange(change).hash

// A module that traps is of no use any more, so a page cannot find out which change it was, as the
// native client does.
story("a change at which the engine traps: a page is told, and goes on when the relay took it out", async world => {
  const url = generateAutomergeUrl()
  const { documentId } = parseAutomergeUrl(url)
  const relay = await world.relay({ arguments: ["--verify-lag-s", "3"] })
  const mallory = world.adopt(await new RawPeer("mallory", relay.url).join())
  const says = changes => mallory.sendSync(documentId, syncMessage({ heads: changes.map(hash).slice(-1), changes }))
  says(first)
  const page = await world.plain(await world.site())
  const opens = async () => {
    await open(page, { relay: relay.url })
    await until("the document", () => find(page, url).then(() => true, () => false))
  }
  await opens()
  const other = await page.evaluate(async () => {
    window.other = await repo.create({ text: "other" })
    return other.url
  })
  says([unsound])
  says([honest])
  const problems = () => page.evaluate(() => window.problems.join())
  await until("the problem to be told", async () => (await problems()).includes(documentId))
  // What the page edits now is kept until the document is of use again.
  await page.evaluate(() => {
    doc.change(d => (d.ours = true))
    other.change(d => (d.more = true))
  })
  await page.evaluate(() => other.whenSynced())
  await until("the relay to take it out", async () => relay.log.includes(hash(unsound)), { seen: () => relay.log })
  await page.reload()
  await page.waitForFunction(() => window.reconverge !== undefined)
  await opens()
  await until("all that is rightful", async () => {
    const { list, ours } = await show(page)
    return list.length === 2 && ours === true
  })
  await becomesStatus(page, "saved")
  assert.deepEqual((await show(page)).list, [1, 2])
  await find(page, other)
  assert.deepEqual(await show(page), { more: true, text: "other" })
})
