// The acceptance suite that automerge-repo ships for network adapters, run by vitest over
// three stock adapters that all point at one relay. `../adapter-suite.test.js` starts it.

import "@automerge/automerge-repo"
import { runNetworkAdapterTests } from "@automerge/automerge-repo/helpers/tests/network-adapter-tests.js"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"

const RETRY_MS = 500

runNetworkAdapterTests(async () => {
  const adapters = [1, 2, 3].map(
    () => new WebSocketClientAdapter(process.env.RELAY_URL, RETRY_MS)
  )
  // The cases use the same three peer ids again and again, so each must leave the relay.
  const teardown = () => {
    for (const adapter of adapters) {
      adapter.connect = () => {}
      if (adapter.peerId && adapter.socket) adapter.disconnect()
    }
  }
  return { adapters, teardown }
}, "three clients of one relay")
