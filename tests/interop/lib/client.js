// Stock automerge-repo clients, as an application would build them.

import * as Automerge from "@automerge/automerge"
import {
  Repo,
  decodeHeads,
  generateAutomergeUrl,
  parseAutomergeUrl,
} from "@automerge/automerge-repo"
import { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"
import { STEP_MS, until, within } from "./wait.js"

/** The adapter's pause before it reconnects; its default of 5 s would only make tests slow. */
export const RETRY_MS = 500

export class Client {
  /** How often the connection to the relay was lost. */
  disconnects = 0

  /**
   * `storage` makes the client remember documents and sync states; `online: false` leaves it
   * without a network until `goOnline`; `sharePolicy` is automerge-repo's.
   */
  constructor(name, url, { storage, online = true, gossip = false, sharePolicy } = {}) {
    this.name = name
    this.adapter = new WebSocketClientAdapter(url, RETRY_MS)
    this.repo = new Repo({
      peerId: name,
      storage,
      network: online ? [this.adapter] : [],
      enableRemoteHeadsGossiping: gossip,
      ...(sharePolicy && { sharePolicy }),
    })
    this.repo.networkSubsystem.on("peer-disconnected", () => {
      this.disconnects += 1
    })
  }

  goOnline() {
    this.repo.networkSubsystem.addNetworkAdapter(this.adapter)
  }

  async connected() {
    await until(`${this.name} is connected`, () => this.repo.peers.length > 0)
    return this
  }

  create(value) {
    return this.repo.create(value)
  }

  async find(url, ms = STEP_MS) {
    return within(`${this.name} finds ${url}`, this.repo.find(url), ms)
  }

  /** Creates a document that the relay stores and `other` finds: the handles of both. */
  async share(value, other) {
    const handle = this.create(value)
    await this.saved(handle)
    return [handle, await other.find(handle.url)]
  }

  /** The relay's storage id, as its handshake told it. */
  async relayStorageId() {
    await this.connected()
    const id = this.repo.getStorageIdOfPeer(this.repo.peers[0])
    if (!id) throw new Error("the relay announced no storage id")
    return id
  }

  /** The relay's heads of this document, as far as this client was told. */
  async acknowledged(handle) {
    const storageId = await this.relayStorageId()
    return handle.getSyncInfo(storageId)?.lastHeads ?? []
  }

  /** Waits until the relay has acknowledged everything that is in the handle right now. */
  async saved(handle, ms = STEP_MS) {
    const wanted = handle.heads()
    let judged
    let covered = false
    await until(
      `the relay acknowledges ${this.name}'s ${handle.documentId}`,
      async () => {
        const heads = await this.acknowledged(handle)
        if (sameHeads(heads, wanted)) return true
        // The relay may be further than this client was, through someone else's edits.
        if (heads.join() === judged) return covered
        if (!Automerge.hasHeads(handle.doc(), decodeHeads(heads))) return false
        judged = heads.join()
        covered = holds(handle.doc(), heads, wanted)
        return covered
      },
      { ms, seen: async () => ({ acknowledged: await this.acknowledged(handle), wanted }) }
    )
  }

  async dispose() {
    retire(this.adapter)
  }
}

/**
 * Takes an adapter off the network for good. Its own `disconnect` is not enough: a retry that
 * is already scheduled would bring it back, and on a socket that is not open it may throw.
 */
export function retire(adapter) {
  const { socket } = adapter
  adapter.connect = () => {}
  if (!socket) return
  if (socket.readyState === socket.OPEN) {
    adapter.disconnect()
  } else {
    // Given up while it connects, it reports an error that the adapter would throw.
    socket.removeEventListener("error", adapter.onError)
    socket.removeEventListener("close", adapter.onClose)
    socket.addEventListener("error", () => {})
    socket.close()
  }
}

/** Whether the history behind `heads` contains all of `wanted` (both in url form). */
function holds(doc, heads, wanted) {
  const newer = new Set(
    Automerge.getChangesMetaSince(doc, decodeHeads(heads)).map(({ hash }) => hash)
  )
  return heads.length > 0 && decodeHeads(wanted).every(hash => !newer.has(hash))
}

export const sameHeads = (a, b) =>
  a.length === b.length && [...a].sort().join() === [...b].sort().join()

/** Waits until all handles stand at the same heads and `also` holds. */
export async function converged(handles, also = () => true, ms = STEP_MS) {
  const [first, ...others] = handles
  await until(
    `${handles.length} replicas of ${first.documentId} converge`,
    () =>
      others.every(handle => sameHeads(handle.heads(), first.heads())) && also(),
    { ms, seen: () => handles.slice(0, 4).map(handle => handle.heads()) }
  )
}

/** A document id that nobody has used yet: `{url, documentId}`. */
export function freshDocument() {
  const url = generateAutomergeUrl()
  return { url, documentId: parseAutomergeUrl(url).documentId }
}

/** A storage adapter that lives as long as the object, so two clients in turn can share it. */
export class MemoryStorage {
  #entries = new Map()

  async load(key) {
    return this.#entries.get(key.join("\0"))
  }

  async save(key, bytes) {
    this.#entries.set(key.join("\0"), bytes.slice())
  }

  async remove(key) {
    this.#entries.delete(key.join("\0"))
  }

  async loadRange(prefix) {
    return this.#within(prefix).map(([key, data]) => ({
      key: key.split("\0"),
      data,
    }))
  }

  async removeRange(prefix) {
    for (const [key] of this.#within(prefix)) this.#entries.delete(key)
  }

  #within(prefix) {
    const start = prefix.join("\0")
    return [...this.#entries].filter(
      ([key]) => key === start || key.startsWith(`${start}\0`)
    )
  }
}
