// A small app in React, 18 or 19: a list of titles, a counter beside it, who else is there.

import { Component, StrictMode, Suspense, createElement as h } from "react"
import { createRoot } from "react-dom/client"
import * as reconverge from "../../../wasm/dist/browser.js"
import { RepoProvider, useConnection, useDocument, useDocumentState, useHandle, usePresence, useSyncStatus, useUndoable } from "../../../wasm/dist/react.js"

window.reconverge = reconverge
window.renders = { title: 0, count: 0 }

class Boundary extends Component {
  state = {}

  static getDerivedStateFromError(error) {
    window.failure = error
    return { error }
  }

  render() {
    return this.state.error ? h("p", { id: "error" }, this.state.error.code) : this.props.children
  }
}

function Title({ url }) {
  renders.title += 1
  const [title, change] = useDocument(url, doc => doc.title)
  return h("input", { id: "title", value: title, onChange: ({ target }) => change(doc => (doc.title = target.value)) })
}

function Count({ url }) {
  renders.count += 1
  const [{ n, last }] = useDocument(url, doc => ({ n: doc.items.length, last: doc.items.at(-1) }))
  return h("p", { id: "count" }, `${n} ${last}`)
}

function People({ url, name }) {
  const handle = useHandle(url)
  const { state } = useSyncStatus(url)
  const { peers, set } = usePresence(handle, { name, at: 0 })
  window.present = set
  const names = [...peers.values()].map(({ state }) => `${state.name} at ${state.at}`).sort()
  return h("p", { id: "people" }, `${state}: ${names.join(", ")}`)
}

function All() {
  const { state } = useSyncStatus()
  const { isConnected, connections } = useConnection()
  return h("p", { id: "all" }, `${state}, ${isConnected}, ${connections.map(({ state }) => state)}`)
}

function Undo({ url }) {
  const { canUndo, canRedo, undo, redo } = useUndoable(useHandle(url), { in: ["items"] })
  window.step = { undo, redo }
  return h("p", { id: "undo" }, `${canUndo} ${canRedo}`)
}

function Picture({ url }) {
  const { state, doc, error } = useDocumentState(url)
  return h("p", { id: "picture" }, `${state} ${doc?.n} ${error?.code}`)
}

let root

window.show = ({ url, name, picture, strict = true }) => {
  root ??= createRoot(document.body.appendChild(document.createElement("main")))
  const parts = url ? [Title, Count, People, All, Undo].map((part, key) => h(part, { url, name, key })) : []
  if (picture) parts.push(h(Picture, { url: picture, key: "picture" }))
  const app = h(RepoProvider, { repo }, h(Boundary, { key: url }, h(Suspense, { fallback: h("p", { id: "wait" }, "wait") }, parts)))
  root.render(strict ? h(StrictMode, null, app) : app)
}

window.unmount = () => {
  root.unmount()
  root = undefined
}
