// Stock automerge-repo in a page, beside the package.

import * as Automerge from "@automerge/automerge/slim"
import { automergeWasmBase64 } from "@automerge/automerge/automerge.wasm.base64"
import { Presence, Repo } from "@automerge/automerge-repo/slim"
import { BrowserWebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket"

await Automerge.initializeBase64Wasm(automergeWasmBase64)

/** Plain, the same for both libraries, and told apart by type where JSON would not. */
function plain(value) {
  // Theirs shows unsigned integers as bigint, however small.
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : { integer: String(value) }
  if (typeof value === "number" && !Number.isSafeInteger(value)) return { float: String(value) }
  if (typeof value !== "object" || value === null) return value
  if (value instanceof Date) return { date: value.getTime() }
  if (value instanceof Uint8Array) return { bytes: [...value] }
  if (Symbol.for("_am_counter") in value) return { counter: value.value }
  // Ours shows a plain string.
  if (Symbol.for("_am_immutableString") in value) return value.val
  if (Array.isArray(value)) return value.map(plain)
  return Object.fromEntries(Object.keys(value).sort().map(key => [key, plain(value[key])]))
}

const sorted = marks => marks.map(mark => JSON.stringify([mark.name, mark.start, mark.end, mark.value])).sort()

window.stock = {
  Automerge,
  Presence,
  plain,

  open(relay) {
    const adapters = relay === undefined ? [] : [new BrowserWebSocketClientAdapter(relay)]
    return new Repo({ network: adapters, peerId: `stock-${Math.random()}` })
  },

  connect(repo, relay) {
    repo.networkSubsystem.addNetworkAdapter(new BrowserWebSocketClientAdapter(relay))
  },

  /** What each end shows: contents, marks of `text`, heads. */
  async ends(ours, theirs) {
    const isText = doc => typeof doc.text === "string"
    for (;;) {
      const heads = await ours.heads()
      const marks = isText(ours.doc()) ? await ours.marks(["text"]) : []
      const shown = plain(ours.doc())
      // The marks are of another moment if something came meanwhile.
      if (String(heads) !== String(await ours.heads())) continue
      const doc = theirs.doc()
      return {
        ours: [shown, sorted(marks), [...heads].sort()],
        theirs: [plain(Automerge.toJS(doc)), sorted(isText(doc) ? Automerge.marks(doc, ["text"]) : []), Automerge.getHeads(doc).sort()],
      }
    }
  },

  /** The function that `source` is the text of, as an edit with the functions of either library. */
  edit(side, source) {
    const library = side === "ours" ? window.reconverge : Automerge
    const fn = new Function("lib", `return ${source}`)(library)
    return draft => fn(draft, library)
  },
}
