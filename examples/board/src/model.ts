// What is in the documents, and all that is done to a board.

import { ImmutableString, type Draft, type View } from "reconverge"
import { inOrder, insertInOrder, moveInOrder } from "reconverge/order"

export interface Column {
    title: string
    order?: ImmutableString
}

export interface Card {
    title: string
    text: string
    /** The key of its column: so it is in one, whoever moves it. */
    column: ImmutableString
    /** Its place among all cards, and so among those of its column. */
    order?: ImmutableString
    /** The url of a document of its own. */
    picture?: ImmutableString
    /** When it was put away: what is typed into it meanwhile is not lost. */
    deleted?: number
}

export interface Board {
    title: string
    columns: Record<string, Column>
    cards: Record<string, Card>
}

export interface Picture {
    type: ImmutableString
    bytes: Uint8Array
}

/** What others see of somebody. */
export interface Person {
    user: { name: string; color: string }
    /** The card that is open. */
    card: string | null
    /** In its text. */
    selection: null
}

/** Under the same keys in all boards, so that nobody makes them twice. */
const COLUMNS = { todo: "To do", doing: "Doing", done: "Done" }

export function newBoard(): Board {
    return {
        title: "Our board",
        columns: Object.fromEntries(Object.entries(COLUMNS).map(([key, title], n) => [key, { title, order: new ImmutableString(`a${n}`) }])),
        cards: {},
    }
}

export type ShownCard = View<Card>

/** The cards of a column, in their order. */
export function cardsOf(board: View<Board>, column: string): [id: string, card: ShownCard][] {
    return inOrder<ShownCard>(board.cards).filter(([, card]) => card.column === column && card.deleted === undefined)
}

export function addCard(board: Draft<Board>, column: string, title: string): string {
    const id = crypto.randomUUID()
    insertInOrder(board.cards, id, { title, text: "", column: new ImmutableString(column) })
    return id
}

/** Puts a card into a column, before another card of it or at its end. */
export function moveCard(board: Draft<Board>, id: string, column: string, before: string | undefined): void {
    const card = board.cards[id]
    // Somebody may have deleted it while it was dragged.
    if (!card || id === before) return
    const others = inOrder(board.cards).map(([other]) => other).filter((other) => other !== id)
    const at = before === undefined ? -1 : others.indexOf(before)
    moveInOrder(board.cards, id, at < 0 ? others.length : at)
    if (String(card.column) !== column) card.column = new ImmutableString(column)
}

export function putAway(board: Draft<Board>, id: string): void {
    const card = board.cards[id]
    if (card) card.deleted = Date.now()
}

export function takeBack(board: Draft<Board>, id: string): void {
    delete board.cards[id]?.deleted
}
