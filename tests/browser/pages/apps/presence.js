// Who else is there and where, in React.

import { RepoContext, usePresence } from "@automerge/automerge-repo-react-hooks"
import { StrictMode, createElement as h } from "react"
import { createRoot } from "react-dom/client"
import { documentOf, ofTab } from "./repo.js"

function Others({ handle }) {
  const { peerStates, update } = usePresence({ handle, initialState: { at: "start" } })
  const others = Object.values(peerStates.getStates()).map(({ value }) => value.at)
  return h("main", null, [
    h("input", { key: 0, onChange: ({ target }) => update("at", target.value) }),
    h("p", { key: 1 }, others.sort().join(", ")),
  ])
}

const repo = ofTab()
const handle = await documentOf(repo, {})
createRoot(document.body).render(h(StrictMode, null, h(RepoContext.Provider, { value: repo }, h(Others, { handle }))))
