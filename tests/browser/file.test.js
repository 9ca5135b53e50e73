// Storage in a file, in Node.js: the contract, and what happens to files and processes.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { open } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { test } from "node:test"
import { fileURLToPath, pathToFileURL } from "node:url"
import { bundle } from "./lib/bundle.js"
import { random } from "./lib/random.js"

const folder = mkdtempSync(join(tmpdir(), "reconverge-file-"))
process.once("exit", () => rmSync(folder, { recursive: true, force: true }))

/** A module of pages/ as a script for a process. */
async function script(name) {
  const path = join(folder, `${name}.mjs`)
  writeFileSync(path, await bundle(`pages/${name}.js`, { platform: "node" }))
  return path
}
const { cases, FileStorage, lock } = await import(pathToFileURL(await script("file")))
const [WRITER, REPO] = [await script("file-writer"), await script("file-repo")]
const PACKAGE = new URL("../../wasm/dist/node.js", import.meta.url).href

let files = 0
const newPath = () => join(folder, `documents-${++files}`)

/** Runs a script; `lines` are what it says. */
function run(...args) {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const kill = async () => {
    child.kill("SIGKILL")
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit")
    // What it said before.
    const rest = []
    for (let line; !(line = await lines.next()).done; ) rest.push(line.value)
    return rest
  }
  return { next: async () => (await lines.next()).value, kill }
}

/** Opens the file, gives what `use` does, and closes it. */
async function opened(path, use) {
  const storage = new FileStorage(path)
  try {
    return await use(storage)
  } finally {
    await storage.close()
  }
}

const rejected = promise =>
  promise.then(
    () => assert.fail("it was taken"),
    error => error
  )

for (const [name, check] of Object.entries(cases)) {
  test(`in a file: ${name}`, async () => {
    const storage = new FileStorage(newPath())
    await check(() => storage)
    await storage.close()
  })
}

test("what was committed is there when the file is opened again, also after it was made smaller", async () => {
  const path = newPath()
  const data = i => new Uint8Array(50_000).fill(i)
  for (let round = 0; round < 5; round++) {
    await opened(path, async storage => {
      for (let i = 0; i < 30; i++) await storage.commit([{ put: ["k", `${i % 7}`], data: data(i) }, { put: [`${i}`], data: data(0).subarray(0, i) }])
    })
    const found = await opened(path, storage => storage.loadRange([]))
    const expected = [...Array(30).keys()].map(i => [[`${i}`], i]).sort(([[a]], [[b]]) => (a < b ? -1 : 1))
    assert.deepEqual(found.filter(({ key }) => key.length === 1).map(({ key, data }) => [key, data.length]), expected)
    const kept = found.filter(({ key }) => key.length === 2)
    assert.deepEqual(kept.map(({ data }) => data[0]), [28, 29, 23, 24, 25, 26, 27])
  }
  assert.ok(statSync(path).size < 3_500_000, `${statSync(path).size}`)
})

test("a process that is killed again and again: what it was told as committed is there, and nothing of half a commit", async t => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32))
  t.diagnostic(`SEED=${seed}`)
  const below = random(seed)
  const path = newPath()
  let first = 0
  let acknowledged = 0
  for (let round = 0; round < 25; round++) {
    const writer = run(WRITER, path, `${first}`, `${below(2 ** 32)}`)
    const names = []
    for (let left = 1 + below(60); left > 0; left--) names.push(Number(await writer.next()))
    names.push(...(await writer.kill()).map(Number))
    acknowledged += names.length
    const found = await opened(path, storage => storage.loadRange([]))
    const b = new Map(found.filter(({ key }) => key[0] === "b").map(({ key, data }) => [Number(key[1]), data]))
    const a = new Map(found.filter(({ key }) => key[0] === "a").map(({ key, data }) => [Number(key[1]), data]))
    for (const name of names) assert.ok(b.has(name), `round ${round}: ${name} is gone`)
    const last = Math.max(-1, ...b.keys())
    for (let i = 0; i <= last; i++) {
      const data = b.get(i)
      assert.ok(data?.every(byte => byte === (i + 1) % 256), `round ${round}: ${i} is not what it was`)
      if (i > last - 49) assert.deepEqual(a.get(i), data, `round ${round}: ${i}`)
      else assert.ok(!a.has(i), `round ${round}: ${i} was removed`)
    }
    first = last + 1
  }
  t.diagnostic(`${acknowledged} commits were acknowledged, ${first} made`)
})

/** A small file with four commits, and where their records begin. */
async function small() {
  const path = newPath()
  const ends = []
  await opened(path, async storage => {
    for (const name of ["one", "two", "three", "four"]) {
      ends.push(await storage.keys([]).then(() => statSync(path).size))
      await storage.commit([{ put: [name], data: new TextEncoder().encode(`the ${name}`) }, { remove: ["none"] }])
    }
  })
  return { path, bytes: readFileSync(path), ends }
}
const NAMES = ["four", "one", "three", "two"]

test("a last commit that was not acknowledged and is torn anywhere is no commit, and the next ones are", async () => {
  const { path, bytes, ends } = await small()
  const from = ends.at(-1)
  for (let size = from; size <= bytes.length; size++) {
    for (const fill of [undefined, 0, 0xff]) {
      // What was not written is not there, or is something else.
      const torn = fill === undefined ? bytes.subarray(0, size) : Buffer.concat([bytes.subarray(0, size), Buffer.alloc(bytes.length - size, fill)])
      const file = Buffer.from(torn)
      if (file.length >= from + 20) file.writeUInt32LE(0, from + 16)
      writeFileSync(path, file)
      await opened(path, storage => storage.save(["next"], new Uint8Array([1])))
      const keys = await opened(path, storage => storage.keys([]))
      const isWhole = size === bytes.length
      assert.deepEqual(keys.map(([name]) => name), ["four", "next", "one", "three", "two"].filter(name => isWhole || name !== "four"), `cut at ${size}, ${fill}`)
    }
  }
})

test("a byte that is not what it was, anywhere: an error that says so, or a chunk without bytes, and nothing else is lost", async () => {
  const { path, bytes } = await small()
  const outcomes = { error: 0, chunk: 0, none: 0 }
  for (let at = 0; at < bytes.length; at++) {
    for (const mask of [1, 0x80]) {
      const file = Buffer.from(bytes)
      file[at] ^= mask
      writeFileSync(path, file)
      try {
        const found = await opened(path, storage => storage.loadRange([]))
        assert.deepEqual(found.map(({ key }) => key[0]), NAMES, `byte ${at}`)
        const wrong = found.filter(({ key, data }) => Buffer.from(data).toString() !== `the ${key[0]}`)
        assert.ok(wrong.every(({ data }) => data.length === 0), `byte ${at}`)
        outcomes[wrong.length > 0 ? "chunk" : "none"] += 1
        if (wrong.length > 0) assert.match((await rejected(opened(path, storage => storage.load(wrong[0].key)))).message, /damaged at byte/)
      } catch (error) {
        if (error.name !== "StorageError") throw error
        assert.match(error.message, /damaged at byte|something else in it|format/)
        assert.deepEqual(readFileSync(path), file, "it was touched")
        outcomes.error += 1
      }
    }
  }
  // Only the marks of acknowledgement may change without an effect, and the file's own number with one.
  assert.ok(outcomes.none <= 4 * 4 * 2, JSON.stringify(outcomes))
})

test("a file of something else, or in a folder that is not there, is told and not touched", async () => {
  const path = newPath()
  writeFileSync(path, "my diary")
  const error = await rejected(opened(path, storage => storage.keys([])))
  assert.equal(error.name, "StorageError")
  assert.match(error.message, /something else/)
  assert.equal(readFileSync(path, "utf8"), "my diary")
  assert.match((await rejected(opened(join(folder, "none", "file"), storage => storage.keys([])))).message, /no such file or directory/)
})

test("one process has it at a time; one that was killed is no hindrance", async () => {
  const path = newPath()
  const writer = run(WRITER, path, "0", "1")
  await writer.next()
  const blocked = await rejected(opened(path, storage => storage.keys([])))
  assert.deepEqual([blocked.name, blocked.failure], ["StorageError", "blocked"])
  await writer.kill()
  await opened(path, async storage => {
    assert.ok((await storage.keys([])).length > 0)
    assert.equal((await rejected(opened(path, other => other.keys([])))).failure, "blocked")
  })
  await opened(path, storage => storage.keys([]))
})

test("a lock by a name in a folder, as where there are no others, is taken from a process that was killed", async () => {
  const address = join(folder, "lock")
  const holder = run("--input-type=module", "--eval", `
    import { lock } from ${JSON.stringify(pathToFileURL(join(folder, "file.mjs")).href)}
    const unlock = await lock(${JSON.stringify(address)})
    console.log(unlock !== undefined)
    setInterval(() => {}, 1000)`)
  assert.equal(await holder.next(), "true")
  assert.equal(await lock(address), undefined)
  await holder.kill()
  const unlock = await lock(address)
  assert.ok(unlock)
  assert.equal(await lock(address), undefined)
  await unlock()
  await (await lock(address))()
})

test("who does not see the lock and writes is noticed before anything is overwritten", async () => {
  const path = newPath()
  const storage = new FileStorage(path)
  await storage.save(["a"], new Uint8Array(1))
  const mine = readFileSync(path)
  // The other one's next record, at the same place; and then a file of its own in this one's place.
  const copy = newPath()
  writeFileSync(copy, mine)
  await opened(copy, other => other.save(["b"], new Uint8Array(1)))
  const theirs = readFileSync(copy)
  writeFileSync(path, theirs)
  const fails = async () => {
    const error = await rejected(storage.save(["c"], new Uint8Array(1)))
    assert.deepEqual([error.failure, readFileSync(path)], ["blocked", theirs])
  }
  await fails()
  rmSync(path)
  writeFileSync(path, theirs)
  await fails()
  await storage.close()
})

test("a full disk, and one that fails: the commit is not made, says why, and can be made again", async () => {
  const handle = await open(join(folder, "any"), "w")
  const prototype = Object.getPrototypeOf(handle)
  await handle.close()
  const path = newPath()
  const storage = new FileStorage(path)
  await storage.save(["before"], new Uint8Array(10))
  const failing = async (name, replacement, failure) => {
    const real = prototype[name]
    prototype[name] = replacement(real)
    const error = await rejected(storage.save([name], new Uint8Array(1000)))
    prototype[name] = real
    assert.deepEqual([error.name, error.failure], ["StorageError", failure], error.message)
    assert.deepEqual(await storage.keys([name]), [])
    await storage.save([name], new Uint8Array(5).fill(7))
  }
  const failed = code => Promise.reject(Object.assign(new Error(code), { code }))
  let written = 0
  const partly = real => function (bytes, offset, length, position) {
    return ++written === 1 ? real.call(this, bytes, offset, 300, position) : failed("ENOSPC")
  }
  await failing("write", partly, "full")
  await failing("datasync", () => () => failed("EIO"), "failed")
  await storage.close()
  const found = await opened(path, storage => storage.loadRange([]))
  assert.deepEqual(found.map(({ key, data }) => [key[0], data.length]), [["before", 10], ["datasync", 5], ["write", 5]])
})

test("making it smaller on a full disk fails without a loss, and without an error to anybody", async () => {
  const handle = await open(join(folder, "any"), "w")
  const prototype = Object.getPrototypeOf(handle)
  await handle.close()
  const path = newPath()
  const storage = new FileStorage(path)
  const { sync } = prototype
  let failed = 0
  await storage.save(["0"], new Uint8Array(1))
  // The file that is open is synced by another call.
  prototype.sync = async () => {
    failed += 1
    throw Object.assign(new Error("full"), { code: "ENOSPC" })
  }
  for (let i = 0; i < 40; i++) await storage.save(["k", `${i % 2}`], new Uint8Array(60_000).fill(i))
  prototype.sync = sync
  assert.ok(failed > 0)
  await storage.close()
  const found = await opened(path, storage => storage.loadRange(["k"]))
  assert.deepEqual(found.map(({ data }) => data[0]), [38, 39])
})

test("a repo in a file: what was stored is there after its process was killed, and one process has it", async () => {
  const path = newPath()
  let url
  let stored = -1
  for (let round = 0; round < 5; round++) {
    const child = run(REPO, PACKAGE, path, ...(url ? [url] : []))
    const [found, numbers] = (await child.next()).split(" ")
    url = found
    assert.deepEqual(JSON.parse(numbers).slice(0, stored + 1), [...Array(stored + 1).keys()])
    for (let i = 0; i < 10; i++) stored = Number(await child.next())
    if (round === 0) {
      const { Repo } = await import(PACKAGE)
      const error = await rejected(Repo.open({ storage: { file: path } }))
      assert.deepEqual([error.name, error.code], ["RepoError", "storage"])
      assert.match(error.message, /another process/)
    }
    const rest = await child.kill()
    stored = Number(rest.at(-1) ?? stored)
  }
  const { Repo } = await import(PACKAGE)
  for (let again = 0; again < 2; again++) {
    const repo = await Repo.open({ storage: { file: path } })
    assert.ok((await repo.find(url)).doc().numbers.length > stored)
    await repo.shutdown()
  }
})

test("the README's example for Node.js runs, and its process ends", async () => {
  const readme = readFileSync(new URL("../../wasm/README.md", import.meta.url), "utf8")
  const [, example] = /^```js node\n([^]*?)^```$/m.exec(readme)
  const path = join(folder, "example.mjs")
  writeFileSync(path, `import { Repo } from ${JSON.stringify(PACKAGE)}\n${example}\nawait repo.create({ text: "kept" })\nawait repo.shutdown()\n`)
  const child = spawn(process.execPath, [path], { cwd: folder, stdio: "inherit" })
  assert.deepEqual(await once(child, "exit"), [0, null])
  assert.ok(statSync(join(folder, "documents.reconverge")).size > 100)
})
