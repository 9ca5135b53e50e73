// A process with a repo in a file: it makes a document, or finds one, adds its name until it is killed,
// and says what is stored.
//
//   node file-repo.mjs PACKAGE PATH [URL]

import { writeSync } from "node:fs"

const [entry, file, url] = process.argv.slice(2)
const { Repo } = await import(entry)
const repo = await Repo.open({ storage: { file } })
const handle = url ? await repo.find(url) : await repo.create({ numbers: [] })
writeSync(1, `${handle.url} ${JSON.stringify(handle.doc().numbers)}\n`)
for (let number = handle.doc().numbers.length; ; number++) {
  handle.change(draft => draft.numbers.push(number))
  await handle.whenSynced({ level: "local" })
  writeSync(1, `${number}\n`)
}
