// Projects that have the packed package installed, and ways to run what they make.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { pack } from "../browser/lib/package.js"
import { within } from "../interop/lib/wait.js"
import { expected } from "./consumer/use.mjs"

const CONSUMER = fileURLToPath(new URL("consumer", import.meta.url))
const TOOL_MS = 120_000

/** Runs a program to its end and returns what it wrote to stdout. */
export async function run(folder, command, ...args) {
  const child = spawn(command, args, { cwd: folder, env: { ...process.env, CI: "true" } })
  let output = ""
  let all = ""
  child.stdout.on("data", data => {
    output += data
    all += data
  })
  child.stderr.on("data", data => (all += data))
  const exit = new Promise((resolve, reject) => {
    child.once("error", reject)
    child.once("close", (code, signal) => resolve(code ?? signal))
  })
  try {
    const code = await within(`${command} ${args.join(" ")}`, exit, TOOL_MS)
    assert.equal(code, 0, `${command} ${args.join(" ")}:\n${all}`)
  } finally {
    child.kill("SIGKILL")
  }
  return output
}

/** A folder with the consumer's files and the tarball installed, as a user does it. */
export async function project() {
  const folder = mkdtempSync(join(tmpdir(), "reconverge-consumer-"))
  process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
  cpSync(CONSUMER, folder, { recursive: true })
  writeFileSync(join(folder, "package.json"), '{ "name": "consumer", "private": true }\n')
  await run(folder, "npm", "install", "--no-fund", "--no-audit", "--loglevel=error", pack().tarball)
  return folder
}

/** Runs `program` of the project and checks what it says. */
export async function check(folder, command, ...args) {
  const output = await run(folder, command, ...args)
  const line = output.split("\n").find(line => line.startsWith("outcome: "))
  assert.equal(line, `outcome: ${JSON.stringify(expected)}`, output)
}

/** Opens the page at `url` and checks what it found. */
export async function checkPage(world, url) {
  const page = await world.page(url)
  await page.waitForFunction(() => globalThis.outcome !== undefined)
  assert.deepEqual(await page.evaluate(() => outcome), { value: expected })
}

/** Serves `folder`, and `places` before it, and checks the page. */
export async function checkBuilt(world, folder, places = {}) {
  const site = await world.site({ "/": `${folder}/`, ...places })
  await checkPage(world, `${site.url}/index.html`)
  const modules = site.requests.filter(path => path.endsWith(".wasm"))
  assert.ok(modules.length <= 1, `the module was loaded more than once: ${modules}`)
}

/** A page for a bundle that is named `page.js` beside it. */
export function page(folder) {
  mkdirSync(folder, { recursive: true })
  cpSync(join(CONSUMER, "index.html"), join(folder, "index.html"))
}
