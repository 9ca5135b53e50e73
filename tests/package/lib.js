// Projects that have the packed package installed, and ways to run what they make.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { pack } from "../browser/lib/package.js"
import { within } from "../interop/lib/wait.js"
import { expected } from "./consumer/use.mjs"

const CONSUMER = fileURLToPath(new URL("consumer", import.meta.url))
const PROJECTS = fileURLToPath(new URL("projects", import.meta.url))
const TOOL_MS = 120_000
export const ENV = { ...process.env, CI: "true", NEXT_TELEMETRY_DISABLED: "1" }

/** Runs a program to its end and returns what it wrote to stdout. */
export async function run(folder, command, ...args) {
  const child = spawn(command, args, { cwd: folder, env: ENV })
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

/** What is removed at the end. */
export const folders = []
process.once("exit", () => folders.forEach(folder => rmSync(folder, { recursive: true, force: true })))

/**
 * A folder with the consumer's files and the tarball installed, as a user does it. With the name of a
 * folder beside this file, its files too, and the project is below what is installed for the tests.
 */
export async function project(kind) {
  if (kind) mkdirSync(PROJECTS, { recursive: true })
  const folder = mkdtempSync(join(kind ? PROJECTS : tmpdir(), "reconverge-consumer-"))
  folders.push(folder)
  cpSync(CONSUMER, folder, { recursive: true })
  if (kind) cpSync(fileURLToPath(new URL(kind, import.meta.url)), folder, { recursive: true })
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

/** Opens the page at `url` twice and checks what it found. */
export async function checkPage(world, url) {
  const page = await world.page(url)
  for (const opened of [1, 2]) {
    await page.waitForFunction(() => globalThis.outcome !== undefined)
    assert.deepEqual(await page.evaluate(() => outcome), { value: expected, opened })
    if (opened === 1) await page.reload()
  }
}

/** Serves `folder` at `base`, and `places` before it, and checks the page at `path`. */
export async function checkBuilt(world, folder, { places = {}, base = "/", path = `${base}index.html` } = {}) {
  const site = await world.site({ [base]: `${folder}/`, ...places })
  await checkPage(world, `${site.url}${path}`)
  const modules = site.requests.filter(path => path.endsWith(".wasm"))
  // Each of the page's two visits has a Worker of its own for each of two repos.
  assert.ok([0, 4].includes(modules.length) && new Set(modules).size <= 1, `what was loaded: ${modules}`)
}

/** For tools that tell their pages the port that they were given, so that it cannot be 0. */
export async function freePort() {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address()
  server.close()
  await once(server, "close")
  return port
}

/** A page for a bundle that is named `page.js` beside it. */
export function page(folder) {
  mkdirSync(folder, { recursive: true })
  cpSync(join(CONSUMER, "index.html"), join(folder, "index.html"))
}
