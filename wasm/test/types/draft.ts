// Drafts: what can be written, and what cannot.

import {
    Counter,
    ImmutableString,
    deleteAt,
    insertAt,
    joinBlock,
    mark,
    splice,
    splitBlock,
    unmark,
    updateBlock,
    updateText,
    type DocHandle,
    type Draft,
    type DraftList,
    type Expand,
    type MarkRange,
    type Path,
} from "reconverge"
import { same } from "./same.js"

type Priority = "low" | "high"

interface Board {
    readonly title: string
    readonly votes: Counter
    readonly due: Date
    readonly icon: Uint8Array
    readonly priority: Priority
    readonly note?: string
    readonly owner: { readonly name: string; readonly retired?: Date } | null
    readonly columns: readonly {
        readonly name: string
        readonly cards: readonly (readonly string[])[]
    }[]
    readonly byName: Readonly<Record<string, { readonly score: number }>>
    readonly big: bigint
    readonly extra: unknown
    readonly key: ImmutableString
}

declare const board: DocHandle<Board>

board.change((draft) => {
    // What is readonly in a document is writable here.
    draft.title = "Plans"
    draft.due = new Date()
    draft.icon = new Uint8Array(16)
    draft.big = 2n ** 62n
    same<string>()(draft.title)
    same<Priority>()(draft.priority)
    draft.priority = "high"
    draft.extra = { anything: 1 }
    same<unknown>()(draft.extra)
    // @ts-expect-error No priority.
    draft.priority = "highest"
    // @ts-expect-error A date is no text.
    draft.due = "tomorrow"
    // @ts-expect-error There is no such key.
    draft.ttle = "Plans"
    // @ts-expect-error It is there always.
    delete draft.title

    // Keys that may be missing.
    same<string | undefined>()(draft.note)
    draft.note = "soon"
    delete draft.note
    // @ts-expect-error Under exactOptionalPropertyTypes; a document stores no undefined.
    draft.note = undefined

    // Counters.
    same<Counter>()(draft.votes)
    draft.votes.increment()
    draft.votes.decrement(2)
    draft.votes = new Counter(3)
    same<number>()(draft.votes.value)
    // @ts-expect-error It would lose what others add.
    draft.votes += 1
    // @ts-expect-error It would lose what others add.
    draft.votes.value = 1

    // Objects that may be missing.
    draft.owner = { name: "Ann" }
    draft.owner.name = "Bob"
    draft.owner = null
    // @ts-expect-error It may be null.
    draft.owner.name

    // Lists in lists.
    draft.columns.push({ name: "To do", cards: [["a"], []] })
    draft.columns[0]?.cards[0]?.push("b")
    const [removed] = draft.columns.splice(0, 1)
    same<{ name: string; cards: DraftList<readonly string[]> } | undefined>()(removed)
    // @ts-expect-error Cards are missing.
    draft.columns.push({ name: "Done" })
    // @ts-expect-error A card is a list of texts.
    draft.columns[0]?.cards[0]?.push(1)
    for (const column of draft.columns) column.name = column.name.trim()
    // Plain arrays can be stored, and what is shown can be stored again.
    draft.columns = board.doc().columns.map(({ name }) => ({ name, cards: [] }))

    insertAt(draft.columns, 0, { name: "Ideas", cards: [] }, { name: "Later", cards: [] })
    insertAt(draft.columns[0]!.cards, 0, ["c"])
    // @ts-expect-error No column.
    insertAt(draft.columns, 0, "Ideas")
    // @ts-expect-error No list.
    insertAt(draft.title, 0, "x")
    deleteAt(draft.columns, 0)
    deleteAt(draft.columns, 0, 2)
    // @ts-expect-error No list.
    deleteAt(draft.owner, 0)

    // Keys of all kinds.
    same<{ score: number } | undefined>()(draft.byName["ann"])
    draft.byName["ann"] = { score: 1 }
    delete draft.byName["ann"]

    // Fixed strings are told as strings or as what they are.
    draft.key = "k"
    draft.key = new ImmutableString("k")

    // What is shown of a fixed string is a text, and can be stored as one again.
    same<string>()(board.doc().key)
    draft.key = board.doc().key

    // Texts, by their path.
    const path: Path = ["columns", 0, "name"]
    splice(draft, path, 0, 1, "x")
    splice(draft, ["title"], 0, 1)
    splice(draft.columns[0]!, ["name"], 0, 0, "x")
    updateText(draft, ["title"], "Plan")
    // @ts-expect-error A path is a list.
    updateText(draft, "title", "Plan")
    // @ts-expect-error There is nothing.
    splice(draft, ["titel"], 0, 1)
    // @ts-expect-error It is a counter.
    updateText(draft, ["votes"], "1")
    // @ts-expect-error It is a column, not its name.
    mark(draft, ["columns", 0], { start: 0, end: 1 }, "bold", true)
    // @ts-expect-error Columns have numbers.
    splitBlock(draft, ["columns", "first", "name"], 0, {})
    splice(draft as object, ["titel"], 0, 1)
    splice(draft as Record<string, unknown>, ["titel"], 0, 1)
    const indexed = 0 as number
    splice(draft, ["columns", indexed, "name"], 0, 1)
    const anywhere = <T extends object>(handle: DocHandle<T>, at: Path): void =>
        handle.change((whole) => splice(whole as object, at, 0, 0, "x"))
    void anywhere
    // @ts-expect-error A text is not a draft.
    splice(draft.title, [], 0, 0, "x")
    // @ts-expect-error A text is inserted.
    splice(draft, ["title"], 0, 0, 1)

    // Marks and blocks.
    const expand: Expand = "both"
    const range: MarkRange = { start: 0, end: 4, expand }
    mark(draft, ["title"], range, "bold", true)
    mark(draft, ["title"], { start: 0, end: 4 }, "link", "https://example.org")
    unmark(draft, ["title"], range, "bold")
    // @ts-expect-error It has an end.
    mark(draft, ["title"], { start: 0 }, "bold", true)
    // @ts-expect-error It grows at its ends.
    mark(draft, ["title"], { ...range, expand: "inside" }, "bold", true)
    splitBlock(draft, ["title"], 0, { type: "heading" })
    updateBlock(draft, ["title"], 0, { type: "paragraph" })
    joinBlock(draft, ["title"], 0)
})

// A draft by its own type: for functions that edit.
const rename = (draft: Draft<Board>, title: string): void => void (draft.title = title)
board.change((draft) => rename(draft, "Plans"))
// @ts-expect-error What is shown is no draft.
rename(board.doc(), "Plans")

declare const anything: DocHandle<Record<string, unknown>>
anything.change((draft) => {
    draft["a"] = 1
    same<unknown>()(draft["a"])
})
declare const untold: DocHandle<unknown>
// @ts-expect-error Tell what is in it: find<T>().
untold.change((draft) => void (draft.a = 1))
