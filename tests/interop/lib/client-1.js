// Stock automerge-repo 1.2.1, on its older Automerge core. Only the basics.

import { Repo } from "automerge-repo-1"
import { BrowserWebSocketClientAdapter } from "automerge-repo-network-websocket-1"
import { RETRY_MS, retire } from "./client.js"
import { until, within } from "./wait.js"

export class Client1 {
  constructor(name, url) {
    this.name = name
    this.adapter = new BrowserWebSocketClientAdapter(url, RETRY_MS)
    this.repo = new Repo({ peerId: name, network: [this.adapter] })
  }

  async connected() {
    await until(`${this.name} is connected`, () => this.repo.peers.length > 0)
    return this
  }

  create(value) {
    return this.repo.create(value)
  }

  async find(url) {
    const handle = this.repo.find(url)
    await within(`${this.name} finds ${url}`, handle.whenReady())
    return handle
  }

  async dispose() {
    retire(this.adapter)
  }
}
