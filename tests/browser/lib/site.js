// A static web server on loopback: folders and texts by path.

import { createServer } from "node:http"
import { readFile } from "node:fs/promises"
import { extname, join, normalize } from "node:path"

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".mjs": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
}

export class Site {
  #server

  /**
   * @param places what is served, by path: under a path that ends in "/" a folder, under any
   * other a text. The longest that fits counts.
   */
  constructor(places) {
    this.places = new Map(Object.entries(places))
    /** What files are served as, by the ends of their names. */
    this.types = { ...TYPES }
    /** Paths that were asked for, in order. */
    this.requests = []
  }

  /** Starts the server; a restart keeps the port, so that pages keep their origin. */
  async start() {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(error => {
        response.writeHead(500)
        response.end(String(error))
      })
    })
    await new Promise((resolve, reject) => {
      this.#server.once("error", reject)
      this.#server.listen(this.port ?? 0, "127.0.0.1", resolve)
    })
    this.port = this.#server.address().port
    return this
  }

  get url() {
    return `http://127.0.0.1:${this.port}`
  }

  async #answer(request, response) {
    const path = decodeURIComponent(new URL(request.url, this.url).pathname)
    this.requests.push(path)
    const body = await this.#find(path)
    if (body === undefined) {
      response.writeHead(404, { "cache-control": "no-store" })
      response.end(`no ${path}`)
      return
    }
    const type = this.types[extname(path) || ".html"] ?? "application/octet-stream"
    response.writeHead(200, { "content-type": type, "cache-control": "no-store" })
    response.end(body)
  }

  async #find(path) {
    if (this.places.has(path) && !path.endsWith("/")) return this.places.get(path)
    const prefix = [...this.places.keys()]
      .filter(place => place.endsWith("/") && path.startsWith(place))
      .sort((a, b) => b.length - a.length)[0]
    if (prefix === undefined) return undefined
    const inside = normalize(path.slice(prefix.length) || "index.html")
    if (inside.startsWith("..")) return undefined
    return readFile(join(this.places.get(prefix), inside)).catch(() => undefined)
  }

  /** Stops the server, as if the app's host were down. */
  async stop() {
    const server = this.#server
    this.#server = undefined
    if (!server) return
    server.closeAllConnections()
    await new Promise(resolve => server.close(resolve))
  }

  dispose() {
    return this.stop()
  }
}
