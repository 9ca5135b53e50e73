// automerge-repo's own presence, for tests that live in other folders.

export { Presence as StockPresence } from "@automerge/automerge-repo"
