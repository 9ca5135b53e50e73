// What a database holds beside documents: its format, its name for relays, the relays for which its
// outbox speaks, and the last wipe.

import { hex } from "../names.js"
import type { Storage, StorageWrite } from "../storage.js"
import { decode, encode } from "./utf8.js"

const FORMAT = ["client", "format"]
const STORAGE_ID = ["client", "id"]
const RELAYS = ["client", "relays"]
const WIPED = ["client", "wiped"]

/** The version of the database's layout. */
const VERSION = 2

/** What a later version wrote, this one might take for damage. */
export async function checkFormat(storage: Storage): Promise<void> {
    const stored = await storage.load(FORMAT)
    const found = stored ? Number(decode(stored)) : 0
    if (found > VERSION) {
        throw new Error(`a newer version of this app changed the database, to format ${found}: reload the page`)
    }
    if (found < VERSION) await storage.save(FORMAT, encode(`${VERSION}`))
}

/** The storage's own name, drawn the first time. */
export async function storageIdOf(storage: Storage): Promise<string> {
    const stored = await storage.load(STORAGE_ID)
    if (stored !== undefined) return decode(stored)
    const name = hex()
    await storage.save(STORAGE_ID, encode(name))
    return name
}

/** What a database that was deleted must have again. */
export function names(storageId: string, relays: readonly string[]): StorageWrite[] {
    return [{ put: STORAGE_ID, data: encode(storageId) }, namesOf(relays)]
}

/** Names the last wipe, if there was one. */
export async function lastWipe(storage: Storage): Promise<string | undefined> {
    const stored = await storage.load(WIPED)
    return stored && decode(stored)
}

/** Removes all, and names that. */
export function wipe(): StorageWrite[] {
    return [{ removeRange: [] }, { put: WIPED, data: encode(hex()) }]
}

export async function documentsIn(storage: Storage): Promise<string[]> {
    const keys = await storage.keys(["documents"])
    return [...new Set(keys.map((documentKey) => documentKey[1] ?? ""))]
}

export async function isDocumentIn(storage: Storage, document: string): Promise<boolean> {
    return (await storage.keys(["documents", document])).length > 0
}

/** The documents in the outbox. */
export async function outboxIn(storage: Storage): Promise<string[]> {
    return (await storage.keys(["outbox"])).map((key) => key[1] ?? "")
}

/**
 * The outbox speaks for the relays that were named. What another one has is not known, so all
 * documents are put into the outbox for it, and their names given.
 */
export async function nameRelays(
    storage: Storage,
    relays: readonly string[],
    commit = (writes: StorageWrite[]): Promise<void> => storage.commit(writes),
): Promise<string[]> {
    const before = await namedRelays(storage)
    const isNew = relays.some(isNoneOf(before))
    if (!isNew && before.length === relays.length) return []
    const writes = [namesOf(relays)]
    const ids = isNew ? await documentsIn(storage) : []
    for (const id of ids) writes.push({ put: ["outbox", id], data: new Uint8Array() })
    await commit(writes)
    return ids
}

export async function namedRelays(storage: Storage): Promise<string[]> {
    const stored = await storage.load(RELAYS)
    return stored ? (JSON.parse(decode(stored)) as string[]) : []
}

export const isNoneOf =
    (names: readonly string[]) =>
    (name: string): boolean =>
        !names.includes(name)

function namesOf(relays: readonly string[]): StorageWrite {
    return { put: RELAYS, data: encode(JSON.stringify(relays)) }
}
