// A process that commits to a file until it is killed, and says what is acknowledged.
//
//   node file-writer.mjs PATH FIRST SEED

import { writeSync } from "node:fs"
import { FileStorage } from "../../../wasm/js/file.js"
import { random as seeded } from "../lib/random.js"

const [path, first, seed] = process.argv.slice(2)
const below = seeded(Number(seed))
const storage = new FileStorage(path)
for (let number = Number(first); ; ) {
  // Several at once, as they wait together for the disk. Each has two chunks, and removes an old one.
  const commits = Array.from({ length: 1 + below(4) }, () => {
    const name = `${number++}`
    const data = new Uint8Array(below(below(8) ? 200 : 200_000)).fill(number)
    const writes = [{ put: ["a", name], data }, { put: ["b", name], data }, { remove: ["a", `${number - 50}`] }]
    return storage.commit(writes).then(() => writeSync(1, `${name}\n`))
  })
  await Promise.all(commits)
}
