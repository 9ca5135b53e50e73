// The same edits and merges by native replicas and by the module of the package: every document
// that is saved has the same bytes, so every change the same hash.

import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { test } from "node:test"
import { fileURLToPath } from "node:url"
import { openHost } from "../../wasm/test/wasm-host.mjs"

const NATIVE_EDITS =
  process.env.NATIVE_EDITS_BIN ?? fileURLToPath(new URL("../../target/release/native-edits", import.meta.url))
const RUNS = 20

/** What `native-edits` writes for values that JSON has no word for. */
function revive(_, value) {
  if (value === null || typeof value !== "object" || Object.keys(value).length !== 1) return value
  if ("date" in value) return new Date(value.date)
  if ("bytes" in value) return new Uint8Array(value.bytes)
  if ("bigint" in value) return BigInt(value.bigint)
  return value
}

/** Returns how many edits there were. */
function play(seed) {
  const lines = execFileSync(NATIVE_EDITS, [`${seed}`], { encoding: "utf8", maxBuffer: 1 << 28 }).trim().split("\n")
  const replicas = [1, 2, 3].map(number => openHost(`${number}`.padStart(2, "0").repeat(16)))
  let edits = 0
  for (const [step, line] of lines.entries()) {
    const { by, operations, merges, heads, saved } = JSON.parse(line, revive)
    const replica = replicas[by]
    if (operations) {
      for (const [name, real] of replica.change(operations)) assert.equal(real, name)
      edits += operations.length
    } else if (merges !== by) {
      replica.merge(replicas[merges].save())
    }
    assert.deepEqual(replica.heads(), heads, `step ${step}`)
    assert.ok(Buffer.from(replica.save()).equals(Buffer.from(saved)), `step ${step}`)
  }
  for (const replica of replicas) replica.close()
  return edits
}

test("the native core and its WebAssembly make the same bytes of the same edits", t => {
  const first = Number(process.env.RECONVERGE_SEED ?? Math.floor(Math.random() * 2 ** 31))
  const runs = process.env.RECONVERGE_SEED ? 1 : RUNS
  t.diagnostic(`seeds ${first} to ${first + runs - 1}`)
  let edits = 0
  for (let seed = first; seed < first + runs; seed++) {
    try {
      edits += play(seed)
    } catch (error) {
      t.diagnostic(`RECONVERGE_SEED=${seed} repeats this`)
      throw error
    }
  }
  t.diagnostic(`${edits} edits`)
  assert.ok(edits > runs * 50)
})
