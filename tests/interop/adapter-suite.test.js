// Runs automerge-repo's own acceptance suite for network adapters against the relay. It was
// written for adapters that link three peers directly; with a relay between them some cases
// cannot hold (a client meets the relay, never the other client), so two cases are required
// and every other result is named in the report.

import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { within } from "./lib/wait.js"
import { story } from "./lib/world.js"

const SUITE_MS = 90_000
const REQUIRED = ["can sync 3 repos", "should support reconnecting after disconnect"]

const here = path => fileURLToPath(new URL(path, import.meta.url))

story("the network adapter acceptance suite passes where a relay can", async world => {
  const relay = await world.relay()
  const results = await within("the acceptance suite", acceptance(relay.url), SUITE_MS)
  for (const { title, status, reason } of results) {
    world.tell(`${status}: ${title}${reason ? ` (${reason})` : ""}`)
  }
  for (const title of REQUIRED) {
    const result = results.find(result => result.title === title)
    assert.equal(result?.status, "passed", `${title}: ${result?.reason}`)
  }
  assert.equal(results.length, 7, "the suite has the cases that this test was written for")
  assert.ok(relay.running)
}, { ms: SUITE_MS + 10_000 })

/** Runs the suite in a process of its own and returns `{title, status, reason}` per case. */
async function acceptance(url) {
  const output = await new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [here("node_modules/vitest/vitest.mjs"), "run", "--reporter=json"],
      {
        cwd: here("adapter-suite"),
        env: { ...process.env, RELAY_URL: url, NODE_OPTIONS: "" },
        timeout: SUITE_MS,
        maxBuffer: 16 * 1024 * 1024,
      },
      // It ends with a failure as soon as one case fails; the report says which.
      (_, stdout, stderr) =>
        stdout.includes("{") ? resolve(stdout) : reject(new Error(`no report: ${stderr}`))
    )
  })
  const report = JSON.parse(output.slice(output.indexOf('{"')))
  return report.testResults
    .flatMap(file => file.assertionResults)
    .map(({ title, status, failureMessages }) => ({
      title,
      status,
      reason: failureMessages?.[0]?.split("\n")[0],
    }))
}
