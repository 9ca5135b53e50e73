// A small app in Vue: the title of a document, its items, who else is there.

import { createApp, h, ref } from "vue"
import * as reconverge from "../../../wasm/dist/browser.js"
import { useConnection, useDocument, usePresence, useSyncStatus, useUndoable } from "../../../wasm/dist/vue.js"

window.reconverge = reconverge
let app

window.show = ({ url, name }) => {
  if (app) return void (window.url.value = url)
  window.url = ref(url)
  app = createApp({
    setup() {
      const { doc, handle, error, change } = useDocument(repo, window.url)
      const status = useSyncStatus(handle)
      const [all, connection] = [useSyncStatus(repo), useConnection(repo)]
      const { peers, set } = usePresence(handle, { state: { name, at: 0 } })
      window.present = set
      const within = { in: ["items"] }
      const undoable = useUndoable(handle, within)
      window.step = { undo: () => handle.value.undo(within), redo: () => handle.value.redo(within) }
      return () => {
        if (error.value) return h("p", { id: "error" }, error.value.code)
        if (!doc.value) return h("p", { id: "wait" }, "wait")
        const names = [...peers.value.values()].map(({ state }) => `${state.name} at ${state.at}`).sort()
        return [
          h("input", { id: "title", value: doc.value.title, onInput: ({ target }) => change(d => (d.title = target.value)) }),
          h("p", { id: "count" }, `${doc.value.items.length} ${doc.value.items.at(-1)}`),
          h("p", { id: "undo" }, `${undoable.value.canUndo} ${undoable.value.canRedo}`),
          h("p", { id: "all" }, `${all.value.state}, ${connection.value.isConnected}, ${connection.value.connections.map(({ state }) => state)}`),
          h("p", { id: "people" }, `${status.value.state}: ${names.join(", ")}`),
        ]
      }
    },
  })
  app.mount(document.body.appendChild(document.createElement("main")))
}

window.unmount = () => app.unmount()
