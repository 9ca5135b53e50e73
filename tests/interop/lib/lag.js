// A line whose client lags: what the relay sends lies on the way until it is let go, and then
// comes at once, as it does to a client that was busy.

import { once } from "node:events"
import { connect, createServer } from "node:net"

export class Lag {
  #target
  #server
  #sockets = new Set()
  #held
  #release = []

  /** @param target gives the relay's `host:port`. */
  constructor(target) {
    this.#target = target
  }

  async open() {
    this.#server = createServer(client => this.#pair(client))
    this.#server.listen(0, "127.0.0.1")
    await once(this.#server, "listening")
    this.url = `ws://127.0.0.1:${this.#server.address().port}`
    return this
  }

  /** Holds what the relay sends from here on. */
  hold() {
    this.#held = { bytes: 0, ended: false }
  }

  /** How many bytes lie on the way, and whether the relay has ended the connection behind them. */
  get held() {
    return this.#held
  }

  /** Lets go of what was held. */
  release() {
    this.#held = undefined
    for (const release of this.#release.splice(0)) release()
  }

  async dispose() {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise(resolve => this.#server.close(resolve))
  }

  #pair(client) {
    const [host, port] = this.#target().split(":")
    const relay = connect({ host, port: Number(port), allowHalfOpen: true })
    const waiting = []
    let ended = false
    const flush = () => {
      if (waiting.length > 0) client.write(Buffer.concat(waiting.splice(0)))
      if (ended) client.end()
    }
    for (const socket of [client, relay]) {
      this.#sockets.add(socket)
      socket.on("error", () => {})
      socket.on("close", () => this.#sockets.delete(socket))
    }
    this.#release.push(flush)
    const arrived = () => {
      if (this.#held) {
        this.#held.bytes += waiting.at(-1)?.length ?? 0
        this.#held.ended ||= ended
        if (!this.#release.includes(flush)) this.#release.push(flush)
      } else flush()
    }
    relay.on("data", data => {
      waiting.push(data)
      arrived()
    })
    relay.on("close", () => {
      if (ended) return
      ended = true
      arrived()
    })
    relay.on("end", () => {
      ended = true
      arrived()
      relay.end()
    })
    client.on("data", data => relay.write(data))
    client.on("end", () => relay.end())
    client.on("close", () => relay.destroy())
  }
}
