// The page: one repo, and the board that its address names.

import { StrictMode, Suspense, useState } from "react"
import { createRoot } from "react-dom/client"
import { Repo } from "reconverge"
import { RepoProvider } from "reconverge/react"

import { BoardPage } from "./BoardPage.tsx"
import { newBoard } from "./model.ts"
import "./style.css"

const relay = new URLSearchParams(location.search).get("relay") ?? "ws://127.0.0.1:3030"

/** Kept, so that one is the same person after a reload. */
function myName(): string {
    const name = localStorage.getItem("name") ?? `Guest ${Math.ceil(Math.random() * 999)}`
    localStorage.setItem("name", name)
    return name
}

const name = myName()
const repo = await Repo.open({ relay, author: name })
const url = location.hash.slice(1) || (await repo.create(newBoard())).url
location.hash = url
Object.assign(window, { repo })

function App() {
    const [card, open] = useState<string>()
    return (
        <RepoProvider repo={repo}>
            <Suspense fallback={<p className="wait">One moment</p>}>
                <BoardPage url={url} name={name} openCard={card} open={open} />
            </Suspense>
        </RepoProvider>
    )
}

createRoot(document.querySelector("#app")!).render(
    <StrictMode>
        <App />
    </StrictMode>,
)
