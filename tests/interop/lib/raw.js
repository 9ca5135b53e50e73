// A peer made of a bare socket: it says what the test tells it to and keeps every frame.

import * as Automerge from "@automerge/automerge"
import { WebSocket } from "ws"
import { decode, encode, syncMessage } from "./wire.js"
import { until, within } from "./wait.js"

const MESSAGE_BYTES_MAX = 256 * 1024 * 1024

export class RawPeer {
  /** Every message received, decoded, in order. */
  received = []
  /** `{code, reason}` once the socket is closed. */
  closed

  #socket
  #replicas = new Map()

  constructor(peerId, url) {
    this.peerId = peerId
    this.url = url
  }

  /** Opens the socket without saying anything on it. */
  async open() {
    this.#socket = new WebSocket(this.url, { maxPayload: MESSAGE_BYTES_MAX })
    this.#socket.on("error", () => {})
    this.#socket.on("message", data => this.#receive(decode(data)))
    this.#socket.on("close", (code, reason) => {
      this.closed = { code, reason: reason.toString() }
    })
    await until(
      `${this.peerId}'s socket opens`,
      () => this.#socket.readyState !== WebSocket.CONNECTING
    )
    return this
  }

  /** Opens the socket and shakes hands; returns after the relay's `peer` message. */
  async join() {
    await this.open()
    this.send({
      type: "join",
      senderId: this.peerId,
      peerMetadata: { isEphemeral: true },
      supportedProtocolVersions: ["1"],
    })
    this.relay = await this.next("peer")
    return this
  }

  send(message) {
    this.sendBytes(encode(message))
  }

  sendBytes(bytes) {
    this.#socket.send(bytes, { binary: true })
  }

  sendText(text) {
    this.#socket.send(text, { binary: false })
  }

  /** Sends the Automerge sync message `data` about a document. */
  sendSync(documentId, data, type = "sync") {
    this.send({
      type,
      senderId: this.peerId,
      targetId: this.relay?.senderId ?? "nobody",
      documentId,
      data: new Uint8Array(data),
    })
  }

  of(type, documentId) {
    return this.received.filter(
      message =>
        message.type === type &&
        (documentId === undefined || message.documentId === documentId)
    )
  }

  /** Waits for a message of this type; one that has already come counts. */
  async next(type, documentId) {
    return until(
      `${this.peerId} receives ${type}`,
      () => this.of(type, documentId)[0],
      { seen: () => this.closed ?? this.received.map(({ type }) => type) }
    )
  }

  async closing(what) {
    await until(`${this.peerId}'s socket is closed: ${what}`, () => this.closed)
    return this.closed
  }

  /**
   * Asks for a document and keeps syncing it with the protocol code of an Automerge, until the
   * relay's heads are here: from then on this peer is a subscriber like any other.
   */
  async subscribe(documentId, core = Automerge) {
    const replica = {
      core,
      doc: core.init(),
      state: core.initSyncState(),
      type: "request",
    }
    this.#replicas.set(documentId, replica)
    this.#answer(documentId, replica)
    await until(
      `${this.peerId} has ${documentId}`,
      () => replica.core.getAllChanges(replica.doc).length > 0
    )
    return this
  }

  doc(documentId) {
    return this.#replicas.get(documentId).doc
  }

  /** What the relay last said its heads are, in hex. */
  relayHeads(documentId) {
    return this.of("sync", documentId)
      .map(({ data }) => Automerge.decodeSyncMessage(data).heads)
      .at(-1)
  }

  async dispose() {
    this.#socket?.terminate()
    if (this.#socket) {
      await within(`${this.peerId} is gone`, until("close", () => this.closed))
    }
  }

  #receive(message) {
    this.received.push(message)
    const replica = this.#replicas.get(message.documentId)
    if (replica && message.type === "sync") {
      const [doc, state] = replica.core.receiveSyncMessage(
        replica.doc,
        replica.state,
        new Uint8Array(message.data)
      )
      replica.doc = doc
      replica.state = state
      this.#answer(message.documentId, replica)
    }
  }

  #answer(documentId, replica) {
    const [state, data] = replica.core.generateSyncMessage(
      replica.doc,
      replica.state
    )
    replica.state = state
    if (data) this.sendSync(documentId, data, replica.type)
    replica.type = "sync"
  }
}

/** The first message of a peer that has nothing of the document. */
export const firstRequest = () => syncMessage({})
