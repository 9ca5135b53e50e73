// A host in the caller's thread.

import { Host } from "./host/host.js"
import type { HostMessage, HostOptions, PageMessage } from "./host/protocol.js"
import { localPorts, serveTabs } from "./host/serve.js"
import { IndexedDbStorage } from "./indexeddb.js"
import { MemoryStorage } from "./memory.js"
import type { OnTrap, Platform, Running } from "./start.js"
import type { Storage } from "./storage.js"

export async function startHere(
    { module, webSocket }: Platform,
    options: HostOptions,
    given: Storage | undefined,
    onTrap: OnTrap,
): Promise<Running> {
    const storage = given ?? (options.keeps ? new IndexedDbStorage({ name: options.name }) : new MemoryStorage())
    const host = await Host.start({ options, storage, webSocket, module })
    const [port, far] = localPorts<PageMessage, HostMessage>()
    host.attach(far)
    const end = options.keeps && given === undefined ? serveTabs(host, options.name) : () => {}
    host.ontrap = (document, error) => {
        end()
        if (storage instanceof IndexedDbStorage && given === undefined) storage.close()
        onTrap(document, String(error))
    }
    return {
        port,
        ...(storage instanceof MemoryStorage && { memory: storage }),
        stop: async () => {
            end()
            await host.close()
        },
    }
}
