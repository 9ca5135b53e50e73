// The repo of `worker.js`.

import { Repo } from "@automerge/automerge-repo"
import { MessageChannelNetworkAdapter } from "@automerge/automerge-repo-network-messagechannel"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { IndexedDBStorageAdapter } from "@automerge/automerge-repo-storage-indexeddb"

export const open = relay =>
  new Repo({
    network: [new WebSocketClientAdapter(relay)],
    storage: new IndexedDBStorageAdapter(),
    peerId: `shared-worker-${Math.round(Math.random() * 10_000)}`,
    sharePolicy: async peerId => peerId.includes("storage-server"),
    enableRemoteHeadsGossiping: true,
  })

export const connect = (repo, port) =>
  repo.networkSubsystem.addNetworkAdapter(new MessageChannelNetworkAdapter(port, { useWeakRef: true }))
