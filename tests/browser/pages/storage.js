// Storage in a page or in a worker; the functions are called from the test.

import { IndexedDbStorage, requestPersistence } from "../../../wasm/js/indexeddb.js"
import { cases } from "./storage-cases.js"

const deleted = name =>
  new Promise((resolve, reject) => {
    const request = indexedDB.deleteDatabase(name)
    request.onsuccess = resolve
    request.onerror = () => reject(request.error)
  })

/** Runs one case on a database of its own. */
async function run(name) {
  const database = `case: ${name}`
  const opened = []
  const open = () => {
    const storage = new IndexedDbStorage({ name: database })
    opened.push(storage)
    return storage
  }
  try {
    await cases[name](open)
  } finally {
    for (const storage of opened) storage.close()
    await deleted(database)
  }
}

Object.assign(globalThis, { IndexedDbStorage, requestPersistence, deleted, run })

if (typeof document === "undefined") {
  onmessage = async ({ data: name }) => {
    try {
      await (name === "persistence" ? requestPersistence() : run(name))
      postMessage("passed")
    } catch (error) {
      postMessage(String(error.stack))
    }
  }
}
