// What a host needs that the page needs, too. It is given to the host's file, which imports none of
// it: else bundlers would make a file of its own of it, as the host's is only loaded where there may
// be no Worker.

import { localPorts, serveTabs } from "./host/serve.js"
import { IndexedDbStorage } from "./indexeddb.js"
import { journalStorage } from "./journal.js"
import { MemoryStorage } from "./memory.js"

export const hostDependencies = { IndexedDbStorage, MemoryStorage, journalStorage, localPorts, serveTabs }

export type HostDependencies = typeof hostDependencies
