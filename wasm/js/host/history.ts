// The history of an object and of what is in it, asked of the engine in parts.

import type { ChangeInfo } from "../types.js"
import type { Engine } from "./engine.js"
import type { Turns } from "./turns.js"

/** How many changes are listed at once. */
const LISTED = 64

let listings = 0

type HistoryRow = [string, string, number, number, string | undefined, string[], number, string | undefined, boolean]

export async function historyOf(
    engine: Engine,
    turns: Turns,
    signal: AbortSignal,
    document: string,
    object: string,
): Promise<ChangeInfo[]> {
    const { client } = engine
    const listing = ++listings
    const changes: ChangeInfo[] = []
    // What is edited meanwhile is not asked for.
    const heads = client.heads(document)
    let isBegun = false
    const step = (): { done: ChangeInfo[] } | undefined => {
        engine.about(document)
        if (!isBegun) client.list(listing, document, object, heads)
        isBegun = true
        const rows = client.listed(listing, LISTED) as HistoryRow[] | undefined
        for (const row of rows ?? []) changes.push(change(row))
        return rows ? undefined : { done: changes }
    }
    try {
        return await turns.take(signal, step)
    } finally {
        if (!engine.isStopped) client.unlist(listing)
    }
}

function change([hash, actor, seq, time, message, deps, operations, author, isOwn]: HistoryRow): ChangeInfo {
    const told = { hash, actor, seq, time, deps, operations, isOwn }
    return { ...told, ...(message !== undefined && { message }), ...(author !== undefined && { author }) }
}
