// What must compile though it is written otherwise than the package does it, and what must not.

import { Counter, ImmutableString, snapshot, type DocHandle, type Draft, type Repo, type View } from "reconverge"
import { reconvergeText } from "reconverge/codemirror"
import { useDocument } from "reconverge/react"
import { same } from "./same.js"

/** As most people declare one: writable. */
interface Board {
    title: string
    at: [x: number, y: number]
    cards: Card[]
    byId: Record<string, Card>
    note?: string
    column: ImmutableString
}

/** And as some do. */
interface Card {
    readonly text: string
    readonly tags: readonly string[]
    readonly owner: { readonly name: string; readonly mails: readonly string[] }
    readonly votes: Counter
}

declare const repo: Repo
declare const board: DocHandle<Board>
declare const card: Card
declare const url: string

// What is shown is readonly, to its leaves.
// @ts-expect-error It is frozen.
board.doc().cards.push(card)
// @ts-expect-error It is frozen.
board.doc().title = "x"
// @ts-expect-error It is frozen.
board.doc().at[0] = 1
// @ts-expect-error It is frozen.
delete board.doc().byId["a"]
same<readonly [x: number, y: number]>()(board.doc().at)
function total(cards: readonly View<Card>[]): number {
    return cards.reduce((sum, { votes }) => sum + votes.value, 0)
}
total(board.doc().cards)

board.change((draft) => {
    // Tuples are tuples.
    same<[x: number, y: number]>()(draft.at)
    draft.at = [1, 2]
    const move = ([x, y]: [number, number]): number => x + y
    move(draft.at)
    // @ts-expect-error It has two.
    draft.at = [1]

    // What is readonly is inserted, and what is drafted is writable to its leaves.
    draft.cards.push(card, ...board.doc().cards)
    draft.cards.unshift(card)
    draft.cards.splice(0, 1, card)
    draft.cards[0]!.tags.push("urgent")
    draft.cards[0]!.owner.mails.push("a@example.org")
    draft.cards[0]!.text = "x"
    draft.byId["a"] = snapshot(card)
    draft.cards = draft.cards.filter(({ tags }) => tags.length > 0)
    draft.cards = [...draft.cards, snapshot(card)]
    draft.cards = draft.cards.map((one) => ({ ...one, text: "x" }))
    draft.cards.sort((one, other) => (one.text < other.text ? -1 : 1))
    same<Draft<Card>>()(snapshot(card))
    same<Draft<Card>>()(draft.cards[0]!)
    // @ts-expect-error No card.
    draft.cards.push({ text: "x" })
    // @ts-expect-error No card.
    draft.cards.push("x")
})
// An expression may have a value.
board.change((draft) => draft.cards.push(card))
board.change((draft) => (draft.title = "x"))
// @ts-expect-error It must not be asynchronous.
board.change(async (draft) => void (draft.title = "x"))
// @ts-expect-error It must not be asynchronous.
board.change((draft) => Promise.resolve(draft.title))
// @ts-expect-error It must not be asynchronous.
void board.changeAt([], async (draft) => void (draft.title = "x"))

// A handle of anything takes any handle.
function log(handle: DocHandle<unknown>): void {
    handle.on("change", ({ doc }) => console.log(doc))
}
log(board)
const all: DocHandle<unknown>[] = [board, await repo.create<Card>(card)]
log(all[0]!)

// A document holds data.
void repo.create({ title: "x", at: new Date(), icon: new Uint8Array(1), n: new Counter(), f: new ImmutableString("f") })
void repo.create<Board>({ title: "x", at: [0, 0], cards: [card], byId: {}, column: new ImmutableString("todo") })
// @ts-expect-error No function.
void repo.create({ title: "x", save: () => {} })
// @ts-expect-error No Map.
void repo.create({ title: "x", cards: new Map<string, Card>() })
// @ts-expect-error No Set, however deep it is.
void repo.create({ title: "x", inner: [{ tags: new Set<string>() }] })
// @ts-expect-error No symbol.
void repo.create({ title: Symbol() })
// @ts-expect-error No promise.
void repo.create({ title: Promise.resolve("x") })

// An editor's path leads to a text.
reconvergeText(board, ["title"])
reconvergeText(board, ["cards", 0, "text"])
reconvergeText(board, ["byId", "a", "owner", "name"])
reconvergeText(board, ["note"])
declare const index: number
reconvergeText(board, ["cards", index, "text"])
declare const path: (string | number)[]
reconvergeText(board, path)
reconvergeText(all[0]!, ["whatever"])
// @ts-expect-error It is misspelt.
reconvergeText(board, ["ttle"])
// @ts-expect-error It is misspelt.
reconvergeText(board, ["cards", 0, "txt"])
// @ts-expect-error That is a list.
reconvergeText(board, ["cards"])
// @ts-expect-error A list has indexes.
reconvergeText(board, ["cards", "first", "text"])

// A selector is given what is shown, whatever its argument says of readonly.
export function Component(): string {
    const [count, change] = useDocument(url, (board: View<Board>) => board.cards.length)
    const [names] = useDocument(url, ({ cards }: Writable) => cards.map(({ text }) => text))
    const [board, changeBoard] = useDocument<Board>(url)
    changeBoard((draft) => draft.cards.push(card))
    // @ts-expect-error It is frozen.
    board.cards.push(card)
    // @ts-expect-error It must not be asynchronous.
    changeBoard(async (draft) => void draft.cards.pop())
    void change
    same<string[]>()(names)
    return `${count} ${names} ${board.title}`
}

interface Writable {
    cards: { text: string }[]
}

// Branded values, data of any shape, and lists that were copied.
type Id = string & { readonly __brand: "Id" }
type Json = null | string | number | boolean | Json[] | { [key: string]: Json }

interface Branded {
    id: Id
    size: number & { readonly __unit: "px" }
    kind: "x" | (string & {})
    data: Json
    list: { id: Id; tags: string[] }[]
}
declare const branded: DocHandle<Branded>
declare const id: Id
const shownId: Id = branded.doc().id
branded.doc().id.toUpperCase()
branded.change((draft) => {
    const own: Id = draft.id
    draft.id = own
    draft.data = { a: [1, null, { b: "x" }] }
    draft.list.push({ id, tags: [] })
})
void repo.create({ id, list: [shownId] })
void repo.create(snapshot(branded.doc().list[0]!))
void repo.create(snapshot(board.doc()))
