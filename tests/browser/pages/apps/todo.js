// A list in React of which every item is a document of its own.

import { RepoContext, useDocument, useRepo } from "@automerge/automerge-repo-react-hooks"
import { StrictMode, Suspense, createElement as h } from "react"
import { createRoot } from "react-dom/client"
import { documentOf, ofTab } from "./repo.js"

function Item({ url }) {
  const [{ text, done }, change] = useDocument(url, { suspense: true })
  const onChange = () => change(item => void (item.done = !item.done))
  return h("li", null, h("input", { type: "checkbox", checked: done, onChange }), `${done ? "done" : "open"}: ${text}`)
}

function List({ url }) {
  const [{ items }, change] = useDocument(url, { suspense: true })
  const repo = useRepo()
  const onSubmit = event => {
    event.preventDefault()
    const { url } = repo.create({ text: event.target.elements.text.value, done: false })
    change(list => void list.items.push(url))
    event.target.reset()
  }
  return h("main", null, [
    h("form", { key: 0, onSubmit }, h("input", { name: "text" })),
    h(Suspense, { key: 1 }, h("ul", null, items.map(url => h(Item, { key: url, url })))),
  ])
}

const repo = ofTab()
const { url } = await documentOf(repo, { items: [] })
createRoot(document.body).render(
  h(StrictMode, null, h(RepoContext.Provider, { value: repo }, h(Suspense, null, h(List, { url }))))
)
