// Starts a host in the caller's thread, which is a page's or the Worker's.

import { EngineError } from "./host/errors.js"
import { Host } from "./host/host.js"
import {
    words,
    type HostMessage,
    type HostOptions,
    type PageMessage,
    type Port,
    type Welcome,
} from "./host/protocol.js"
import type { HostDependencies } from "./host-dependencies.js"
import type { OnTrap, Platform, Running } from "./platform.js"
import type { Storage } from "./storage.js"

/**
 * A host that serves its page at `port`, and the other tabs if they share its storage. When it has wiped
 * all, the next one serves them: nothing that was begun before goes on.
 */
export async function runHost(
    { module, webSocket }: Platform,
    { IndexedDbStorage, MemoryStorage, journalStorage, serveTabs }: HostDependencies,
    options: HostOptions,
    given: Storage | undefined,
    port: Port<HostMessage, PageMessage>,
    onTrap: OnTrap,
): Promise<Omit<Running, "port" | "welcome">> {
    const storage = given ?? (options.keeps ? new IndexedDbStorage({ name: options.name }) : new MemoryStorage())
    const isShared = options.keeps && given === undefined
    const journal = isShared ? journalStorage(options.name) : undefined
    const close = (): void => {
        if (storage instanceof IndexedDbStorage && given === undefined) storage.close()
        journal?.close()
    }
    let host: Host
    let end = (): void => {}
    let isStopped = false
    const serve = async (unsent?: readonly string[], online?: boolean): Promise<void> => {
        host = await Host.start({ options, storage, journal, webSocket, module, unsent, online })
        host.ontrap = (document, error) => {
            end()
            close()
            onTrap(document, String(error))
        }
        host.onwiped = (...left) => {
            end()
            if (!isStopped) next = serve(...left).catch((error: unknown) => (close(), onTrap(undefined, words(error))))
        }
        host.attach(port, "", options)
        if (isShared) end = serveTabs(host, options.name)
    }
    /** After a wipe. */
    let next: Promise<unknown> = serve().catch((error: unknown) => {
        close()
        if (error instanceof EngineError) onTrap(undefined, words(error))
        throw error
    })
    await next
    return {
        ...(storage instanceof MemoryStorage && { memory: storage }),
        stop: async () => {
            isStopped = true
            await next
            end()
            await host.close()
            journal?.close()
        },
    }
}

export async function startHere(
    platform: Platform,
    dependencies: HostDependencies,
    options: HostOptions,
    given: Storage | undefined,
    onTrap: OnTrap,
): Promise<Running> {
    const [port, far] = dependencies.localPorts<PageMessage, HostMessage>()
    const welcome = new Promise<Welcome>((resolve) => (port.onmessage = (message) => resolve(message as Welcome)))
    const running = await runHost(platform, dependencies, options, given, far, onTrap)
    return { port, welcome: await welcome, ...running }
}
