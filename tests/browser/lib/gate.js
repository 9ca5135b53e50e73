// A relay's gate: it lets in who shows a token that is valid at the time, and answers others with
// HTTP 401. It counts who is inside, and can swallow all that is said, as a dead line does.

import { createServer } from "node:http"
import { connect } from "node:net"

export class Gate {
  /** Tokens that are let in; all are if there is no set. */
  valid
  /** The tokens that were shown, in order; "" for none. */
  shown = []
  /** Nothing goes through, and nobody is told. */
  silent = false
  /** How often the relay said something. */
  heard = 0

  #relay
  #server
  #inside = new Set()

  constructor(relay, valid) {
    this.#relay = relay
    this.valid = valid && new Set(valid)
  }

  async start() {
    this.#server = createServer((request, response) => {
      const status = this.#admits(request) ? 426 : 401
      response.writeHead(status, { "access-control-allow-origin": "*" }).end(status === 401 ? "your token is not valid" : "")
    })
    this.#server.on("upgrade", (request, near, head) => {
      near.on("error", () => {}) // it is closed then
      this.shown.push(tokenOf(request))
      if (this.#admits(request)) this.#lead(request, near, head)
      else near.end("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
    })
    await new Promise(resolve => this.#server.listen(0, "127.0.0.1", resolve))
    this.url = `ws://127.0.0.1:${this.#server.address().port}`
    return this
  }

  /** How many connections there are. */
  get inside() {
    return this.#inside.size
  }

  /** Breaks all connections. */
  cut() {
    for (const socket of this.#inside) socket.destroy()
  }

  async dispose() {
    this.cut()
    this.#server.closeAllConnections()
    await new Promise(resolve => this.#server.close(resolve))
  }

  #admits(request) {
    return !this.valid || this.valid.has(tokenOf(request))
  }

  #lead({ rawHeaders }, near, head) {
    const [, host, port] = /^(.*):(\d+)$/.exec(this.#relay.address)
    const far = connect(Number(port), host)
    far.on("error", () => {})
    const lines = rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [`${name}: ${rawHeaders[i + 1]}`] : []))
    far.write(`GET / HTTP/1.1\r\n${lines.join("\r\n")}\r\n\r\n`)
    far.write(head)
    this.#inside.add(near)
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on("data", data => {
        if (from === far) this.heard += 1
        if (!this.silent) to.write(data)
      })
      from.on("close", () => {
        this.#inside.delete(near)
        to.destroy()
      })
    }
  }
}

const tokenOf = ({ url }) => new URL(url, "http://gate").searchParams.get("token") ?? ""
