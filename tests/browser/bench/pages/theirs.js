// automerge-repo, as the bench drives it: with what its authors recommend for quick pages, a module
// that is compiled while it loads.

import * as Automerge from "@automerge/automerge/slim"
import { Repo, initializeWasm } from "@automerge/automerge-repo/slim"
import { BrowserWebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb"

export async function start(relay) {
  await initializeWasm(fetch("/automerge.wasm"))
  const repo = new Repo({
    network: [new BrowserWebSocketClientAdapter(relay)],
    storage: new IndexedDBStorageAdapter(),
    enableRemoteHeadsGossiping: true,
  })
  return {
    async find(url) {
      const handle = await repo.find(url)
      // Its event does not tell whose change it was.
      let isOwn = false
      return {
        doc: () => handle.doc(),
        type(index, text) {
          isOwn = true
          handle.change(draft => Automerge.splice(draft, ["text"], index, 0, text))
          isOwn = false
        },
        onRemote: listener => handle.on("change", ({ patches }) => isOwn || listener(patches)),
        stored: () => repo.flush([handle.documentId]),
        saved: () => saved(repo, handle),
        release: () => repo.removeFromCache(handle.documentId),
      }
    },
  }
}

/** Waits until the relay has told that it has what the handle has. */
function saved(repo, handle) {
  const wanted = handle.heads().join()
  const is = () => {
    const storageId = repo.peers.map(peer => repo.getStorageIdOfPeer(peer)).find(Boolean)
    return storageId !== undefined && handle.getSyncInfo(storageId)?.lastHeads.join() === wanted
  }
  return new Promise(resolve => {
    const look = () => {
      if (!is()) return
      handle.off("remote-heads", look)
      resolve()
    }
    handle.on("remote-heads", look)
    look()
  })
}
