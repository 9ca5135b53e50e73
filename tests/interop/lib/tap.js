// A WebSocket proxy between one client and the relay. It counts what passes, and it can cut
// the line, which is how a client goes offline here: to the client it looks like a network
// that is gone, and its own code does the reconnecting.
//
// Sizes are payload bytes of binary WebSocket messages; frame headers and pings are not in.

import { once } from "node:events"
import { WebSocket, WebSocketServer } from "ws"
import { decode } from "./wire.js"

const MESSAGE_BYTES_MAX = 256 * 1024 * 1024

export class Tap {
  #target
  #server
  #pairs = new Set()
  #watchers = { up: [], down: [] }

  /** Messages from the client to the relay: `{type, documentId, senderId, count, bytes, at}`. */
  up = []
  /** Messages from the relay to the client, in the same form. */
  down = []
  /** How often a client came through. */
  connections = 0

  constructor(target) {
    this.#target = target
  }

  async open() {
    await this.#listen(0)
    return this
  }

  get url() {
    return `ws://127.0.0.1:${this.port}`
  }

  /** Everything that passed, in either direction. */
  get count() {
    return this.up.length + this.down.length
  }

  bytes(direction, chosen = () => true) {
    return this[direction]
      .filter(chosen)
      .reduce((sum, message) => sum + message.bytes, 0)
  }

  /** Forgets what was counted. */
  reset() {
    this.up = []
    this.down = []
  }

  /** Resolves as soon as the next message in this direction comes by. */
  next(direction) {
    return new Promise(resolve => this.#watchers[direction].push(resolve))
  }

  /** Breaks every connection and refuses new ones. */
  async cut() {
    const closed = new Promise(resolve => this.#server.close(resolve))
    for (const { client, relay } of this.#pairs) {
      client.terminate()
      relay.terminate()
    }
    await closed
  }

  /** Lets connections through again, at the same address. */
  async heal() {
    await this.#listen(this.port)
  }

  async dispose() {
    await this.cut()
  }

  async #listen(port) {
    this.#server = new WebSocketServer({
      host: "127.0.0.1",
      port,
      maxPayload: MESSAGE_BYTES_MAX,
    })
    this.#server.on("connection", client => this.#pair(client))
    await once(this.#server, "listening")
    this.port = this.#server.address().port
  }

  #pair(client) {
    this.connections += 1
    const relay = new WebSocket(this.#target(), {
      maxPayload: MESSAGE_BYTES_MAX,
    })
    const pair = { client, relay }
    this.#pairs.add(pair)
    const waiting = []
    client.on("message", data => {
      this.#note("up", data)
      if (relay.readyState === WebSocket.OPEN) relay.send(data)
      else waiting.push(data)
    })
    relay.on("open", () => {
      for (const data of waiting.splice(0)) relay.send(data)
    })
    relay.on("message", data => {
      this.#note("down", data)
      if (client.readyState === WebSocket.OPEN) client.send(data)
    })
    const end = other => code => {
      this.#pairs.delete(pair)
      // 1005 and 1006 stand for "no code" and may not be sent
      if (code >= 1000 && code !== 1005 && code !== 1006) other.close(code)
      else other.terminate()
    }
    client.on("close", end(relay))
    relay.on("close", end(client))
    client.on("error", () => {})
    relay.on("error", () => {})
  }

  #note(direction, data) {
    const { type, documentId, senderId, count } = decode(data)
    const bytes = data.byteLength
    const at = performance.now()
    this[direction].push({ type, documentId, senderId, count, bytes, at })
    for (const seen of this.#watchers[direction].splice(0)) seen()
  }
}
