// The real engine as the host of the differential test: RECONVERGE_HOST=<this file>.

import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { Client, documentId, initSync } from "../dist/core/reconverge.js"

const module = readFileSync(new URL("../dist/core/reconverge_bg.wasm", import.meta.url))
initSync({ module })

/** Draws `bytes`, so that the document is edited by the actor that the test names. */
function drawing(bytes, action) {
    const { getRandomValues } = crypto
    crypto.getRandomValues = (array) => (array.set(bytes.subarray(0, array.length)), array)
    try {
        return action()
    } finally {
        crypto.getRandomValues = getRandomValues
    }
}

export function openHost(actor) {
    const client = new Client("test", "", "session", [], 0)
    const bytes = Uint8Array.from(Buffer.from(actor, "hex"))
    const made = (bytes) => {
        const document = documentId(randomUUID())
        client.import(document, bytes, 0)
        return document
    }
    const document = drawing(bytes, () => made(new Uint8Array(EMPTY)))
    client.observe(document, true)
    // What is to be stored is, at once.
    const settle = () => {
        for (;;) {
            const output = client.poll(0)
            if (output.type === "idle") return
            if (output.type === "store") client.stored(0, output.document, undefined)
        }
    }
    settle()
    return {
        told: [],
        change(operations) {
            const names = new Map()
            client.change(document, operations, names, 0, undefined, undefined, false)
            this.told = client.takePatches(document)[0]
            settle()
            return names
        },
        merge(bytes) {
            const other = made(bytes)
            client.merge(document, other)
            const [operations] = client.takePatches(document)
            client.delete(other)
            settle()
            return operations
        },
        read: () => client.state(document),
        heads: () => client.heads(document),
        spans: (object, heads) => client.spans(document, object, heads),
        diff: (before, after) => [
            client.state(document, before),
            client.since(document, before, after),
            client.diff(document, before, after),
        ],
        save: () => client.save(document),
        close: () => client.free(),
    }
}

/** What Automerge saves of an empty document. */
const EMPTY = [133, 111, 74, 131, 184, 26, 149, 68, 0, 4, 0, 0, 0, 0]
