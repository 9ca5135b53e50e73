// A card that is open: its title, picture, text with the carets of others, and history.

import { defaultKeymap } from "@codemirror/commands"
import { EditorView, keymap } from "@codemirror/view"
import { useEffect, useRef, useState } from "react"
import { ImmutableString, type ChangeGroup, type PresenceHandle } from "reconverge"
import { reconvergeText } from "reconverge/codemirror"
import { useDocument, useHandle, useRepo, useTextInput } from "reconverge/react"

import { CardPicture } from "./CardFront.tsx"
import { putAway, type Board, type Person, type Picture, type ShownCard } from "./model.ts"

interface Props {
    url: string
    id: string
    card: ShownCard
    presence: PresenceHandle<Person>
    onClose: () => void
}

export function CardDetails({ url, id, card, presence, onClose }: Props) {
    const repo = useRepo()
    const handle = useHandle<Board>(url)
    const [, change] = useDocument<Board, string>(url, (board) => board.title)
    const editor = useRef<HTMLDivElement>(null)

    useEffect(() => {
        const view = new EditorView({
            parent: editor.current!,
            extensions: [reconvergeText(handle, ["cards", id, "text"], { presence }), keymap.of(defaultKeymap), EditorView.lineWrapping],
        })
        return () => view.destroy()
    }, [handle, id, presence])

    const addPicture = async (file: File | undefined): Promise<void> => {
        if (!file) return
        const bytes = new Uint8Array(await file.arrayBuffer())
        const picture = await repo.create<Picture>({ type: new ImmutableString(file.type), bytes })
        change((board) => {
            const card = board.cards[id]
            if (card) card.picture = new ImmutableString(picture.url)
        })
        picture.release()
    }

    return (
        <aside>
            <button className="close" onClick={onClose} aria-label="Close">
                ×
            </button>
            <input className="title" aria-label="Title of the card" ref={useTextInput(handle, ["cards", id, "title"])} />
            {card.picture !== undefined && <CardPicture url={card.picture} />}
            <div className="text" ref={editor} />
            <label>
                Picture: <input type="file" accept="image/*" onChange={({ target }) => void addPicture(target.files?.[0])} />
            </label>
            <button
                onClick={() => {
                    change((board) => putAway(board, id))
                    onClose()
                }}
            >
                Put away
            </button>
            <History url={url} id={id} card={card} />
        </aside>
    )
}

/** Who changed the card when, and a way back. */
function History({ url, id, card }: { url: string; id: string; card: ShownCard }) {
    const handle = useHandle<Board>(url)
    const [groups, setGroups] = useState<ChangeGroup[]>([])
    useEffect(() => {
        const ended = new AbortController()
        const { signal } = ended
        // It is asked for when nobody has typed for a moment.
        const timer = setTimeout(() => {
            handle.history({ path: ["cards", id], group: 60, signal }).then(setGroups, () => {})
        }, 500)
        return () => {
            clearTimeout(timer)
            ended.abort()
        }
    }, [handle, id, card])
    return (
        <ol>
            {groups.toReversed().map((group) => {
                const last = group.changes.at(-1)!
                return (
                    <li key={last.hash}>
                        {group.author ?? "Somebody"}, {new Date(group.time * 1000).toLocaleTimeString()}{" "}
                        <button onClick={() => void handle.restore(["cards", id], [last.hash])}>Back to this</button>
                    </li>
                )
            })}
        </ol>
    )
}
