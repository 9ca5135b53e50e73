// The native client (the chat of examples/chat.rs) beside stock clients, through the relay and
// through the reference server.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { Repo } from "@automerge/automerge-repo"
import { WebSocketServerAdapter } from "@automerge/automerge-repo-network-websocket"
import { WebSocketServer } from "ws"
import { until } from "./lib/wait.js"
import { story } from "./lib/world.js"

const CHAT =
  process.env.CHAT_BIN ??
  fileURLToPath(new URL("../../target/release/chat", import.meta.url))

class Chat {
  lines = []
  statuses = []

  constructor(...args) {
    this.child = spawn(CHAT, args, { stdio: ["pipe", "pipe", "pipe"] })
    const read = (stream, into) =>
      createInterface({ input: stream }).on("line", line => into.push(line))
    read(this.child.stdout, this.lines)
    read(this.child.stderr, this.statuses)
  }

  say(text) {
    this.child.stdin.write(`${text}\n`)
  }

  async heard(line) {
    await until(`the chat shows ${line}`, () => this.lines.includes(line))
  }

  /** Closes its terminal; it ends when all it said is saved. */
  async end() {
    this.child.stdin.end()
    const [code] = await once(this.child, "exit")
    assert.equal(code, 0, this.statuses.join("\n"))
  }

  async dispose() {
    this.child.kill("SIGKILL")
  }
}

const said = doc => (doc?.messages ?? []).map(m => `${m.from}: ${m.text}`)

async function talk(world, url, repo) {
  const handle = repo.create({ messages: [{ from: "ann", text: "hello" }] })
  const bob = world.adopt(new Chat(url, "bob", handle.url))
  await bob.heard("ann: hello")
  bob.say("hi")
  await until("ann hears bob", () => said(handle.doc()).includes("bob: hi"))
  handle.change(doc => doc.messages.push({ from: "ann", text: "how are you?" }))
  await bob.heard("ann: how are you?")
  for (let n = 0; n < 50; n++) {
    bob.say(`bob ${n}`)
    handle.change(doc => doc.messages.push({ from: "ann", text: `ann ${n}` }))
  }
  await bob.heard("ann: ann 49")
  await until("ann hears it all", () => said(handle.doc()).includes("bob: bob 49"))
  await bob.end()
  assert.equal(new Set(said(handle.doc())).size, 103, "each line once")

  // Started by the native client, found by the stock one.
  const eve = world.adopt(new Chat(url, "eve"))
  await until("eve's document", () => eve.lines.length > 0)
  eve.say("anybody?")
  await until("it is saved", () => eve.statuses.at(-1) === "[saved]")
  const hers = await repo.find(eve.lines[0])
  await until("ann hears eve", () => said(hers.doc()).includes("eve: anybody?"))
  hers.change(doc => doc.messages.push({ from: "ann", text: "here" }))
  await eve.heard("ann: here")
  await eve.end()
}

story("a native and a stock client talk through the relay", async world => {
  const relay = await world.relay()
  const ann = await world.client("ann", relay)
  await talk(world, relay.url, ann.repo)
})

story("a native client talks through the reference server", async world => {
  const sockets = new WebSocketServer({ port: 0 })
  await once(sockets, "listening")
  const server = new Repo({ network: [new WebSocketServerAdapter(sockets)] })
  world.adopt({ dispose: async () => sockets.close() })
  await talk(world, `ws://127.0.0.1:${sockets.address().port}`, server)
})
