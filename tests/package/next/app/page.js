"use client"

import { Suspense, useEffect, useState } from "react"
import { RepoProvider, useDocument, useRepo } from "reconverge/react"

export default function Page() {
  return (
    <RepoProvider fallback={<p id="opening">opening</p>}>
      <Suspense>
        <Document />
      </Suspense>
    </RepoProvider>
  )
}

/** The document that the page's address names, or a new one. */
function Document() {
  const repo = useRepo()
  const [url, setUrl] = useState(location.hash.slice(1))
  useEffect(() => {
    if (!url) repo.create({ text: "made" }).then(({ url }) => setUrl(url))
    else history.replaceState(null, "", `#${url}`)
  }, [repo, url])
  return url ? <Text url={url} /> : null
}

function Text({ url }) {
  const [{ text }, change] = useDocument(url)
  return <input id="text" value={text} onChange={({ target }) => change(draft => (draft.text = target.value))} />
}
