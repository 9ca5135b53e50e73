// What the pages of this folder have in common: a repo as automerge-repo's examples make theirs, and
// the document that the address names, or a new one.

import { Repo, isValidAutomergeUrl } from "@automerge/automerge-repo"
import { BroadcastChannelNetworkAdapter } from "@automerge/automerge-repo-network-broadcastchannel"
import { MessageChannelNetworkAdapter } from "@automerge/automerge-repo-network-messagechannel"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb"

const relay = new URLSearchParams(location.search).get("relay")

/** A repo of this tab, which other tabs of the browser hear, too. */
export const ofTab = () =>
  new Repo({
    network: [new BroadcastChannelNetworkAdapter(), new WebSocketClientAdapter(relay)],
    storage: new IndexedDBStorageAdapter(),
  })

/** A repo that knows nobody but a SharedWorker, which speaks to the relay. */
export function ofWorker() {
  const worker = new SharedWorker(`/worker.js?relay=${encodeURIComponent(relay)}`, { type: "module" })
  return new Repo({
    network: [new MessageChannelNetworkAdapter(worker.port)],
    sharePolicy: async peerId => peerId.includes("shared-worker"),
    enableRemoteHeadsGossiping: true,
  })
}

/**
 * A worker that has just started answers "unavailable" before it is connected, whatever the server
 * is (automerge-repo 2.5.6, also with its own): so it is asked again.
 */
async function findSoon(repo, url) {
  for (let tries = 0; ; tries++) {
    try {
      return await repo.find(url)
    } catch (error) {
      if (tries === 100 || !/unavailable/.test(error.message)) throw error
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}

export async function documentOf(repo, initial) {
  const named = location.hash.slice(1)
  const handle = isValidAutomergeUrl(named) ? await findSoon(repo, named) : repo.create(initial)
  location.hash = handle.url
  Object.assign(window, { repo, handle })
  return handle
}
