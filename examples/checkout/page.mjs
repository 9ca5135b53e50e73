// The page of `main.rs`, here in Node.js: it orders two lamps, waits until both services have done their
// part, and confirms. `node page.mjs RELAY DOCUMENT`, with the package built in `wasm`.

import { Repo } from "../../wasm/dist/node.js"

const [relay, url] = process.argv.slice(2)
const repo = await Repo.open({ relay, storage: "memory" })
const order = await repo.find(url)
order.change(draft => (draft.items.lamp = 2))
const isReady = () => order.doc().reserved.lamp === 2 && order.doc().due_cents === 4000
await new Promise(resolve => {
  const look = () => isReady() && resolve()
  order.on("change", look)
  look()
})
order.change(draft => (draft.confirmed = true))
await order.whenSynced()
console.log(`confirmed: ${order.doc().due_cents} cents due`)
await repo.shutdown()
