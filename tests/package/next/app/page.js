"use client"

import { useEffect, useState } from "react"
import { Repo } from "reconverge"
import { RepoProvider, useDocument } from "reconverge/react"

export default function Page() {
  const [opened, setOpened] = useState()
  useEffect(() => {
    open().then(setOpened, error => setOpened({ error: String(error) }))
  }, [])
  if (opened?.error) return <p id="error">{opened.error}</p>
  return opened ? (
    <RepoProvider repo={opened.repo}>
      <Text url={opened.url} />
    </RepoProvider>
  ) : null
}

/** The document that the page's address names, or a new one. */
async function open() {
  const repo = await Repo.open()
  const url = location.hash.slice(1) || (await repo.create({ text: "made" })).url
  history.replaceState(null, "", `#${url}`)
  return { repo, url }
}

function Text({ url }) {
  const [{ text }, change] = useDocument(url)
  return <input id="text" value={text} onChange={({ target }) => change(draft => (draft.text = target.value))} />
}
