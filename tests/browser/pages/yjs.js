// Yjs with y-indexeddb, to compare with.

import { IndexeddbPersistence } from "y-indexeddb"
import { Doc } from "yjs"

/** Opens what IndexedDB has, as `edits`. */
window.openYjs = async () => {
  const doc = new Doc()
  await new IndexeddbPersistence("edits", doc).whenSynced
  window.edits = doc.getArray("edits")
}
