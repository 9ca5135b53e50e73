// A person's line to the relay, which can be cut: to the pages it looks like a network that is gone.

import { connect, createServer } from "node:net"

export class Line {
  #relay
  #server
  #sockets = new Set()

  /** `relay` may be stopped and started again meanwhile. */
  constructor(relay) {
    this.#relay = relay
  }

  async start() {
    this.#server = createServer(near => {
      const [, host, port] = /^(.*):(\d+)$/.exec(this.#relay.address)
      const far = connect(Number(port), host)
      for (const [from, to] of [[near, far], [far, near]]) {
        this.#sockets.add(from)
        from.on("error", () => {}) // it is closed then
        from.on("close", () => {
          this.#sockets.delete(from)
          to.destroy()
        })
        from.pipe(to)
      }
    })
    await new Promise((resolve, reject) => {
      this.#server.once("error", reject)
      this.#server.listen(this.port ?? 0, "127.0.0.1", resolve)
    })
    this.port = this.#server.address().port
    return this
  }

  get url() {
    return `ws://127.0.0.1:${this.port}`
  }

  get whole() {
    return this.#server !== undefined
  }

  /** Breaks all connections and lets none through until `start`. */
  async cut() {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    const closed = new Promise(resolve => server.close(resolve))
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }

  dispose() {
    return this.cut()
  }
}
