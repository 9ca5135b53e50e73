/** What the shared document holds, and how it is edited. */

import { updateText, type DocHandle, type View } from "reconverge"

export interface Board {
    title: string
    text: string
    /** By id, as a list has no way to move an element: `order` says where each stands. */
    items: Record<string, Item>
    strokes: Stroke[]
}

export interface Item {
    text: string
    done: boolean
    order: number
}

export interface Stroke {
    /** The id of who drew it. */
    by: string
    /** The name of a colour, so that it suits light and dark. */
    color: string
    /** x and y in turn, 16 bits each. As bytes it is one value, where numbers would be hundreds. */
    points: Uint8Array
}

export type BoardHandle = DocHandle<Board>

/** As it is shown: readonly. */
export type ShownBoard = View<Board>

export const emptyBoard = (): Board => ({ title: "", text: "", items: {}, strokes: [] })

export type ListedItem = Item & { id: string }

export function sortedItems(board: ShownBoard): ListedItem[] {
    return Object.entries(board.items)
        .map(([id, item]) => ({ id, ...item }))
        .sort((a, b) => a.order - b.order || (a.id < b.id ? -1 : 1))
}

export function addItem(handle: BoardHandle, text: string): string {
    const id = randomId()
    const last = sortedItems(handle.doc()).at(-1)?.order ?? 0
    handle.change((board) => {
        board.items[id] = { text, done: false, order: last + 1 }
    })
    return id
}

/** Puts an item at this index among the others. */
export function moveItem(handle: BoardHandle, id: string, index: number): void {
    const others = sortedItems(handle.doc()).filter((item) => item.id !== id)
    const before = others[index - 1]?.order
    const after = others[index]?.order
    if (before === undefined && after === undefined) return
    const low = before ?? after! - 2
    const high = after ?? before! + 2
    // Not the middle: two who move at once to the same place do not get the same number.
    const order = low + (high - low) * (0.4 + Math.random() * 0.2)
    handle.change((board) => {
        if (order > low && order < high) {
            board.items[id]!.order = order
            return
        }
        // There is no number between the two any more.
        const ids = others.map((item) => item.id)
        ids.splice(index, 0, id)
        ids.forEach((each, at) => (board.items[each]!.order = at + 1))
    })
}

export function setItemText(handle: BoardHandle, id: string, text: string): void {
    if (handle.doc().items[id] === undefined) return
    handle.change((board) => updateText(board, ["items", id, "text"], text))
}

export function setTitle(handle: BoardHandle, title: string): void {
    handle.change((board) => updateText(board, ["title"], title))
}

export function randomId(): string {
    const bytes = crypto.getRandomValues(new Uint8Array(8))
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")
}
