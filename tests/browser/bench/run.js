// Measures the package beside automerge-repo, in one Chromium, against one relay.
//
//   npm run bench
//   npm run bench -- --documents=small,friendsforever --clients=ours --runs=3 --seconds=10 --board=0
//   npm run bench -- --documents= --board=300

import { execFileSync } from "node:child_process"
import { cpus, loadavg } from "node:os"
import { parseArgs } from "node:util"
import { CLIENTS, measure } from "./measure.js"
import { DOCUMENTS } from "./documents.js"
import { measureBoard } from "./board.js"
import { boardTable, table } from "./report.js"
import { sizes } from "./sizes.js"

const { values } = parseArgs({
  options: {
    documents: { type: "string", default: Object.keys(DOCUMENTS).join() },
    clients: { type: "string", default: CLIENTS.join() },
    runs: { type: "string", default: "3" },
    seconds: { type: "string", default: "10" },
    board: { type: "string", default: "300" },
    json: { type: "boolean", default: false },
  },
})

const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim()
console.log(`commit ${commit}, ${cpus().length} cores (${cpus()[0].model}), load ${loadavg()[0].toFixed(1)}\n`)

const board = Number(values.board) > 0 ? await measureBoard(Number(values.board)) : undefined
if (board) console.log(`a board of 1,000 cards, ${values.board} changes of one field\n\n${boardTable(board)}\n`)
if (values.documents === "") process.exit()

const found = await measure({
  documents: values.documents.split(","),
  clients: values.clients.split(","),
  runs: Number(values.runs),
  seconds: Number(values.seconds),
  tell: line => console.error(line),
})
if (values.json) console.log(JSON.stringify(found, null, 1))
console.log(table(found, await sizes()))
console.log(`\nload at the end ${loadavg()[0].toFixed(1)}`)
