// The board: its columns with their cards, who is here, undo, and whether all is safe.

import { useEffect, useState } from "react"
import { inOrder } from "reconverge/order"
import { useDocument, useHandle, usePresence, useSyncStatus, useTextInput } from "reconverge/react"

import { CardDetails } from "./CardDetails.tsx"
import { CardFront } from "./CardFront.tsx"
import { addCard, cardsOf, moveCard, takeBack, type Board, type Column, type Person } from "./model.ts"

const COLORS = ["#0f766e", "#9d174d", "#1d4ed8", "#a16207", "#7c3aed"]

interface Props {
    url: string
    name: string
    openCard: string | undefined
    open: (card: string | undefined) => void
}

export function BoardPage({ url, name, openCard, open }: Props) {
    const handle = useHandle<Board>(url)
    const [board, change] = useDocument<Board>(url)
    const { state } = useSyncStatus(url)
    const color = COLORS[name.length % COLORS.length]!
    const { peers, set, presence } = usePresence<Person>(handle, { user: { name, color }, card: null, selection: null })
    useEffect(() => set({ card: openCard ?? null }), [set, openCard])
    const [dragged, drag] = useState<string>()

    const people = [...peers.values()].map(({ state }) => state)
    const drop = (column: string, before?: string): void => {
        if (dragged !== undefined) change((board) => moveCard(board, dragged, column, before))
        drag(undefined)
    }
    const shownCard = openCard === undefined ? undefined : board.cards[openCard]
    const put = Object.entries(board.cards).filter(([, card]) => card.deleted !== undefined)

    return (
        <>
            <header>
                <input className="title" aria-label="Title" ref={useTextInput(handle, ["title"])} />
                <span className="people">
                    {people.map(({ user }, n) => (
                        <i key={n} style={{ background: user.color }} title={user.name}>
                            {user.name.slice(0, 1)}
                        </i>
                    ))}
                </span>
                <Undo url={url} />
                <span className="status">{state}</span>
            </header>
            <main>
                {inOrder<{ title: string }>(board.columns).map(([key, column]) => (
                    <section key={key} data-column={key} onDragOver={(event) => event.preventDefault()} onDrop={() => drop(key)}>
                        <h2>{(column as Column).title}</h2>
                        {cardsOf(board, key).map(([id, card]) => (
                            <CardFront
                                key={id}
                                card={card}
                                watchers={people.filter((person) => person.card === id).map(({ user }) => user.name)}
                                onOpen={() => open(id)}
                                onDrag={() => drag(id)}
                                onDrop={() => drop(key, id)}
                            />
                        ))}
                        <NewCard onAdd={(title) => change((board) => void addCard(board, key, title))} />
                    </section>
                ))}
            </main>
            {put.length > 0 && (
                <footer>
                    Put away:{" "}
                    {put.map(([id, card]) => (
                        <button key={id} onClick={() => change((board) => takeBack(board, id))}>
                            {card.title || "untitled"}
                        </button>
                    ))}
                </footer>
            )}
            {openCard !== undefined && shownCard && (
                <CardDetails key={openCard} url={url} id={openCard} card={shownCard} presence={presence} onClose={() => open(undefined)} />
            )}
        </>
    )
}

function NewCard({ onAdd }: { onAdd: (title: string) => void }) {
    const [title, setTitle] = useState("")
    return (
        <form
            onSubmit={(event) => {
                event.preventDefault()
                if (title) onAdd(title)
                setTitle("")
            }}
        >
            <input value={title} placeholder="New card" aria-label="New card" onChange={({ target }) => setTitle(target.value)} />
        </form>
    )
}

function Undo({ url }: { url: string }) {
    const handle = useHandle<Board>(url)
    const [can, setCan] = useState({ canUndo: handle.canUndo, canRedo: handle.canRedo })
    useEffect(() => handle.on("undoable", setCan), [handle])
    return (
        <span>
            <button disabled={!can.canUndo} onClick={() => void handle.undo()}>
                Undo
            </button>
            <button disabled={!can.canRedo} onClick={() => void handle.redo()}>
                Redo
            </button>
        </span>
    )
}
