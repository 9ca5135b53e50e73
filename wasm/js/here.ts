// Starts a host in the caller's thread, which is a page's or the Worker's.

import { Host } from "./host/host.js"
import { words, type HostMessage, type HostOptions, type PageMessage, type Port } from "./host/protocol.js"
import { EngineError } from "./host/view.js"
import type { Parts } from "./parts.js"
import type { OnTrap, Platform, Running } from "./start.js"
import type { Storage } from "./storage.js"

/** A host that serves its page at `port`, and the other tabs if they share its storage. */
export async function runHost(
    { module, webSocket }: Platform,
    { IndexedDbStorage, MemoryStorage, journalStorage, serveTabs }: Parts,
    options: HostOptions,
    given: Storage | undefined,
    port: Port<HostMessage, PageMessage>,
    onTrap: OnTrap,
): Promise<Omit<Running, "port">> {
    const storage = given ?? (options.keeps ? new IndexedDbStorage({ name: options.name }) : new MemoryStorage())
    const isShared = options.keeps && given === undefined
    const journal = isShared ? journalStorage(options.name) : undefined
    const host = await Host.start({ options, storage, journal, webSocket, module }).catch((error: unknown) => {
        if (given === undefined) storage.close()
        journal?.close()
        if (error instanceof EngineError) onTrap(undefined, words(error))
        throw error
    })
    host.attach(port, "", options)
    const end = isShared ? serveTabs(host, options.name) : () => {}
    host.ontrap = (document, error) => {
        end()
        journal?.close()
        if (storage instanceof IndexedDbStorage && given === undefined) storage.close()
        onTrap(document, String(error))
    }
    return {
        ...(storage instanceof MemoryStorage && { memory: storage }),
        stop: async () => {
            end()
            await host.close()
            journal?.close()
        },
    }
}

export async function startHere(
    platform: Platform,
    parts: Parts,
    options: HostOptions,
    given: Storage | undefined,
    onTrap: OnTrap,
): Promise<Running> {
    const [port, far] = parts.localPorts<PageMessage, HostMessage>()
    return { port, ...(await runHost(platform, parts, options, given, far, onTrap)) }
}
