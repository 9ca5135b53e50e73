// A counter in React, whose repo is in a SharedWorker.

import { RepoContext, useDocument } from "@automerge/automerge-repo-react-hooks"
import { StrictMode, Suspense, createElement as h } from "react"
import { createRoot } from "react-dom/client"
import { documentOf, ofWorker } from "./repo.js"

function Counter({ url }) {
  const [{ count }, change] = useDocument(url, { suspense: true })
  return h("button", { onClick: () => change(doc => void (doc.count += 1)) }, `Count: ${count}`)
}

const repo = ofWorker()
const { url } = await documentOf(repo, { count: 0 })
createRoot(document.body).render(
  h(StrictMode, null, h(RepoContext.Provider, { value: repo }, h(Suspense, null, h(Counter, { url }))))
)
