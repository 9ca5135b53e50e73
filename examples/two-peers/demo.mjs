// Two clients write one document through the relay. `node demo.mjs` makes a document,
// `node demo.mjs automerge:...` goes on with one; RELAY names another relay than the local one.

import { Repo } from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"

const relay = process.env.RELAY ?? "ws://127.0.0.1:3030"
const join = () => new Repo({ network: [new WebSocketClientAdapter(relay)] })
const [ann, bob] = [join(), join()]
const url = process.argv[2]

const hers = url ? await ann.find(url) : ann.create({ lines: [] })
hers.change(doc => doc.lines.push(`ann, ${new Date().toISOString()}`))
const his = await bob.find(hers.url)
const heard = new Promise(resolve => hers.once("change", resolve))
his.change(doc => doc.lines.push(`bob, ${new Date().toISOString()}`))
await heard
console.log(hers.url)
for (const line of hers.doc().lines) console.log(line)
process.exit()
