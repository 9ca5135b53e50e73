// Somebody else, in a process of its own, who types on command: the package in Node.js, since a
// stock client does not keep up with 50 keystrokes per second in the largest document.

import { createHash } from "node:crypto"
import { Client } from "../../interop/lib/client.js"
import { Repo, splice } from "../../../wasm/dist/node.js"

/** Where the typist types, as a share of the text; the page types at another place. */
const PLACE = 0.75

let repo
let handle

const commands = {
  async put({ relay, url, bytes }) {
    const putter = new Client(`putter-${process.pid}-${Date.now()}`, relay, { gossip: true })
    const documentId = url.slice("automerge:".length)
    const put = putter.repo.import(Buffer.from(bytes, "base64"), { docId: documentId })
    await putter.saved(put, 120_000)
    await putter.dispose()
  },

  async find({ relay, url }) {
    repo = await Repo.open({ relay })
    handle = await repo.find(url)
  },

  /** Types one character at a time, and tells when it did. */
  async type({ count, everyMs }) {
    const sent = []
    const start = performance.now()
    for (let i = 0; i < count; i++) {
      const wait = start + i * everyMs - performance.now()
      if (wait > 0) await new Promise(resolve => setTimeout(resolve, wait))
      else await new Promise(resolve => setImmediate(resolve))
      sent.push(performance.timeOrigin + performance.now())
      handle.change(draft => {
        const at = Math.floor(draft.text.length * PLACE)
        splice(draft, ["text"], at, 0, String.fromCharCode(97 + (i % 26)))
      })
    }
    return { sent, ms: performance.now() - start }
  },

  async digest() {
    return createHash("sha256").update(handle.doc().text).digest("hex")
  },

  async leave() {
    await repo.shutdown()
  },
}

process.on("message", async ({ call, name, args }) => {
  try {
    process.send({ call, value: await commands[name](args) })
  } catch (error) {
    process.send({ call, error: String(error.stack ?? error) })
  }
})
process.on("disconnect", () => process.exit())
