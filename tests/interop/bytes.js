// What a stock client sends and receives for 30 documents of 20 changes: its first upload, the
// download by one that has nothing, and the visit of one that has all of them and remembers. For
// the load driver: `load bytes`.
//
// node bytes.js ws://...|reference

import { Repo } from "@automerge/automerge-repo"
import {
  WebSocketClientAdapter,
  WebSocketServerAdapter,
} from "@automerge/automerge-repo-network-websocket"
import { WebSocketServer } from "ws"
import { MemoryStorage, RETRY_MS, retire, sameHeads } from "./lib/client.js"
import { until } from "./lib/wait.js"
import { setTimeout as pause } from "node:timers/promises"

const DOCUMENTS = 30
const CHANGES = 20

/** After so long without a message, in milliseconds, nothing more comes. */
const QUIET_MS = 1_500

class Counting extends WebSocketClientAdapter {
  up = 0
  down = 0
  at = performance.now()

  connect(peerId, peerMetadata) {
    super.connect(peerId, peerMetadata)
    const { socket } = this
    const send = socket.send.bind(socket)
    socket.send = bytes => {
      this.up += bytes.byteLength
      this.at = performance.now()
      send(bytes)
    }
  }

  receiveMessage(bytes) {
    this.down += bytes.byteLength
    this.at = performance.now()
    super.receiveMessage(bytes)
  }
}

async function reference() {
  const sockets = new WebSocketServer({ port: 0, host: "127.0.0.1" })
  await new Promise(resolve => sockets.once("listening", resolve))
  new Repo({
    peerId: "storage-server",
    network: [new WebSocketServerAdapter(sockets)],
    storage: new MemoryStorage(),
    sharePolicy: async () => false,
  })
  return `ws://127.0.0.1:${sockets.address().port}`
}

const url = process.argv[2] === "reference" ? await reference() : process.argv[2]

/** One client's visit: prints its name and bytes up and down. */
async function visit(what, storage, work) {
  const adapter = new Counting(url, RETRY_MS)
  const repo = new Repo({ peerId: `${what}-${process.pid}`, network: [], storage })
  await work(repo, () => repo.networkSubsystem.addNetworkAdapter(adapter))
  await until("nothing more comes", () => performance.now() - adapter.at > QUIET_MS)
  console.log([what, adapter.up, adapter.down].join("\t"))
  retire(adapter)
  await repo.flush()
}

const mine = new MemoryStorage()
let documents

await visit("first upload", mine, async (repo, goOnline) => {
  const handles = []
  for (let n = 0; n < DOCUMENTS; n++) {
    const handle = repo.create({ text: "", n })
    for (let at = 1; at < CHANGES; at++) {
      handle.change(doc => {
        doc.text = `${doc.text}${at % 10}`
      })
    }
    handles.push(handle)
  }
  documents = handles.map(handle => ({ url: handle.url, heads: handle.heads() }))
  goOnline()
  await until("the server is there", () => repo.peers.length > 0)
  await pause(500)
})

async function fetchAll(repo, goOnline) {
  goOnline()
  await until("the server is there", () => repo.peers.length > 0)
  const handles = await Promise.all(documents.map(({ url }) => repo.find(url)))
  await until("all documents are whole", () =>
    handles.every((handle, n) => sameHeads(handle.heads(), documents[n].heads))
  )
}

await visit("download by a fresh one", new MemoryStorage(), fetchAll)
await visit("second visit", mine, fetchAll)
process.exit(0)
