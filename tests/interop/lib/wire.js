// The bytes that automerge-repo and Automerge put on the wire, written by hand, so that the
// suite can say things that the stock client never would.

import { createHash } from "node:crypto"
import { Encoder } from "cbor-x"

const cbor = new Encoder({ tagUint8Array: false, useRecords: false })

export const encode = message => cbor.encode(message)
export const decode = bytes => cbor.decode(bytes)

const CHUNK_MAGIC = [0x85, 0x6f, 0x4a, 0x83]
const CHUNK_DOCUMENT = 0
const HASH_BYTES = 32

const SYNC_V1 = 0x42
const SYNC_V2 = 0x43
/** What Automerge 3.5.0 appends: it reads V2 and knows about resets. */
const SYNC_FLAGS = [0x02, 0x02, 0x84]

/** An unsigned LEB128 number as bytes. */
export function uleb(value) {
  const bytes = []
  do {
    const low = value % 128
    value = Math.floor(value / 128)
    bytes.push(value > 0 ? low | 0x80 : low)
  } while (value > 0)
  return Buffer.from(bytes)
}

/** Reads an unsigned LEB128 number; returns `[value, offset behind it]`. */
function readUleb(bytes, offset) {
  let value = 0
  let scale = 1
  for (;;) {
    const byte = bytes[offset++]
    value += (byte & 0x7f) * scale
    if (byte < 0x80) return [value, offset]
    scale *= 128
  }
}

const sized = bytes => Buffer.concat([uleb(bytes.length), bytes])

const hashes = hex =>
  Buffer.concat([
    uleb(hex.length),
    ...[...hex].sort().map(hash => Buffer.from(hash, "hex")),
  ])

/**
 * An Automerge sync message with no Bloom filter: `heads` and `need` in hex, `changes` as
 * byte strings, each a chunk or a run of chunks.
 */
export function syncMessage({ heads = [], need = [], changes = [], v2 = false }) {
  return Buffer.concat([
    Buffer.from([v2 ? SYNC_V2 : SYNC_V1]),
    hashes(heads),
    hashes(need),
    uleb(0),
    uleb(changes.length),
    ...changes.map(bytes => sized(Buffer.from(bytes))),
    Buffer.from(SYNC_FLAGS),
  ])
}

/** A chunk around `data`, with the checksum that belongs to it. */
function chunk(type, data) {
  const body = Buffer.concat([Buffer.from([type]), uleb(data.length), data])
  const checksum = createHash("sha256").update(body).digest().subarray(0, 4)
  return Buffer.concat([Buffer.from(CHUNK_MAGIC), checksum, body])
}

/**
 * A saved document whose list of heads names `claimed` (hex) instead of its single true head,
 * and is otherwise whole: the checksum is right, only the claim is false.
 */
export function documentClaiming(saved, claimed) {
  const bytes = Buffer.from(saved)
  if (bytes[8] !== CHUNK_DOCUMENT) throw new Error("not a document chunk")
  const [length, start] = readUleb(bytes, 9)
  const data = Buffer.from(bytes.subarray(start, start + length))
  let [actors, at] = readUleb(data, 0)
  while (actors-- > 0) {
    const [actorBytes, next] = readUleb(data, at)
    at = next + actorBytes
  }
  const [heads, first] = readUleb(data, at)
  if (heads !== 1) throw new Error(`expected one head, found ${heads}`)
  Buffer.from(claimed, "hex").copy(data, first, 0, HASH_BYTES)
  return chunk(CHUNK_DOCUMENT, data)
}
