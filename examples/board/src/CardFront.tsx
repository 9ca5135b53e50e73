// A card as it lies on the board.

import { memo, useEffect, useState } from "react"
import { useDocumentState } from "reconverge/react"

import type { Picture, ShownCard } from "./model.ts"

interface Props {
    card: ShownCard
    /** The names of those who have it open. */
    watchers: string[]
    onOpen: () => void
    onDrag: () => void
    onDrop: () => void
}

export function CardFront({ card, watchers, onOpen, onDrag, onDrop }: Props) {
    return (
        <article
            draggable
            tabIndex={0}
            onClick={onOpen}
            onKeyDown={({ key }) => key === "Enter" && onOpen()}
            onDragStart={onDrag}
            onDragOver={(event) => event.preventDefault()}
            onDrop={(event) => {
                event.stopPropagation()
                onDrop()
            }}
        >
            {card.picture !== undefined && <CardPicture url={card.picture} />}
            <h3>{card.title || "untitled"}</h3>
            {watchers.length > 0 && <small>{watchers.join(", ")}</small>}
        </article>
    )
}

/** It may not be here yet; then the board is shown without it. */
export const CardPicture = memo(function CardPicture({ url }: { url: string }) {
    const { state, doc } = useDocumentState<Picture>(url)
    const [source, setSource] = useState<string>()
    useEffect(() => {
        if (!doc) return
        const source = URL.createObjectURL(new Blob([doc.bytes.slice()], { type: doc.type }))
        setSource(source)
        return () => URL.revokeObjectURL(source)
    }, [doc])
    return source === undefined ? <p className="picture">Picture: {state}</p> : <img src={source} alt="" />
})
