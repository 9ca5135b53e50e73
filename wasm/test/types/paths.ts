// Paths that lead to a text, or anywhere at all; items that are put in order; and documents from JSON.

import { EditorState } from "@codemirror/state"
import {
    Counter,
    ImmutableString,
    insertAt,
    splice,
    updateText,
    type DocHandle,
    type Draft,
    type Path,
    type Repo,
    type View,
} from "reconverge"
import { reconvergeText } from "reconverge/codemirror"
import { bindText } from "reconverge/input"
import { fromJSON, toJSON } from "reconverge/json"
import { inOrder, insertInOrder, moveInOrder, type Ordered } from "reconverge/order"
import { useTextInput, useUndoable } from "reconverge/react"
import { textInput, undoableStore } from "reconverge/svelte"
import * as vue from "reconverge/vue"
import { same } from "./same.js"

interface Card {
    title: string
    tags: string[]
}

interface Item extends Ordered {
    text: string
    state: ImmutableString
    due?: Date
}

interface Plan {
    title: string
    note?: string
    status: "open" | "done"
    kind: ImmutableString
    either: string | ImmutableString
    votes: Counter
    cards: Record<string, Card>
    items: Record<string, Item>
    list: Card[]
}

declare const repo: Repo
declare const plan: DocHandle<Plan>
declare const shown: DocHandle<View<Plan>>
declare const unknown: DocHandle<unknown>
declare const any: DocHandle<any>
declare const card: View<Card>
declare const item: View<Item>
declare const input: HTMLInputElement
declare const somewhere: Path
declare const id: string

// A text, or what may be one.
bindText(input, plan, ["title"])
bindText(input, plan, ["note"])
bindText(input, plan, ["either"])
bindText(input, plan, ["list", 0, "title"])
bindText(input, plan, ["items", id, "text"])
bindText(input, plan, ["list", 0, "tags", 1])
bindText(input, plan, somewhere)
bindText(input, plan, plan.place(["title"]))
bindText(input, shown, ["title"])
bindText(input, unknown, ["anything"])
bindText(input, any, ["anything"])
// @ts-expect-error Not in the document.
bindText(input, plan, ["titel"])
// @ts-expect-error Shown as a string, but fixed.
bindText(input, plan, ["kind"])
// @ts-expect-error Shown as a string, but fixed.
bindText(input, plan, ["items", id, "state"])
// @ts-expect-error It is a counter.
bindText(input, plan, ["votes"])
// @ts-expect-error Shown as a string, but fixed.
useTextInput(plan, ["kind"])
// @ts-expect-error Shown as a string, but fixed.
textInput(input, { handle: plan, path: ["kind"] })
// @ts-expect-error Shown as a string, but fixed.
EditorState.create({ extensions: reconvergeText(plan, ["kind"]) })

// As Vue's compiler calls the directive: there is no other type of what it is given.
const shows = vue.vTextInput.mounted
shows(input, { value: { handle: plan, path: ["title"] } })
shows(input, { value: { handle: plan as DocHandle<Plan> | undefined, path: ["list", 0, "title"], onGone() {} } })
shows(input, { value: { handle: undefined, path: ["title"] } })
shows(input, { value: { handle: plan, path: plan.place(["title"]) } })
shows(input, { value: { handle: any, path: ["anything"] } })
// @ts-expect-error Not in the document.
shows(input, { value: { handle: plan, path: ["titel"] } })
// @ts-expect-error Shown as a string, but fixed.
shows(input, { value: { handle: plan, path: ["kind"] } })
// @ts-expect-error It is a counter.
shows(input, { value: { handle: plan, path: ["votes"] } })
// @ts-expect-error No path.
shows(input, { value: { handle: plan } })

plan.change((draft) => {
    splice(draft, ["title"], 0, 0, "x")
    splice(draft, ["items", id, "text"], 0, 0, "x")
    splice(draft.items[id]!, ["text"], 0, 0, "x")
    updateText(draft, ["note"], "x")
    // @ts-expect-error Only replaced as a whole.
    splice(draft, ["kind"], 0, 0, "x")
    // @ts-expect-error Only replaced as a whole.
    updateText(draft.items[id]!, ["state"], "x")
})
any.change((draft) => splice(draft, ["anything"], 0, 0, "x"))

// What leads anywhere.
const heads = await plan.heads()
await plan.restore(["items", id], heads)
await plan.restore(["list", 0, "tags"], heads)
await plan.restore(["note"], heads)
await plan.restore([], heads)
await plan.restore(somewhere, heads)
await plan.restore(plan.place(["title"]), heads)
await unknown.restore(["anything"], heads)
await any.restore(["anything"], heads)
await plan.conflicts(["kind"])
await plan.conflicts(["list", 0])
await plan.conflicts(somewhere)
await plan.undo({ in: ["items", id] })
await plan.redo({ in: plan.place(["items", id]) })
same<boolean>()(plan.undoable({ in: somewhere }).canUndo)
// @ts-expect-error Not in the document.
await plan.restore(["itemz"], heads)
// @ts-expect-error Not in the document.
await plan.restore(["items", id, "txt"], heads)
// @ts-expect-error Not in the document.
await plan.conflicts(["kindd"])
// @ts-expect-error Not in the document.
await plan.undo({ in: ["itemz"] })
// @ts-expect-error Not in the document.
plan.undoable({ in: ["list", "first"] })

same<boolean>()(useUndoable(plan).canUndo)
same<Promise<"all" | "part" | false>>()(useUndoable(plan, { in: ["items", id] }).undo())
useUndoable(plan, { in: plan.place(["title"]) })
undoableStore(plan, { in: ["title"] })
same<boolean>()(vue.useUndoable(() => plan, { in: ["title"] }).value.canRedo)
// @ts-expect-error Not in the document.
useUndoable(plan, { in: ["itemz"] })
// @ts-expect-error Not in the document.
undoableStore(plan, { in: ["itemz"] })
// @ts-expect-error Not in the document.
vue.useUndoable(() => plan, { in: ["itemz"] })

// Where the type does not matter.
export const title = (handle: DocHandle<unknown>): Promise<void> => handle.restore(["title"], heads)
void title(plan as DocHandle<unknown>)
export const generic = <T>(handle: DocHandle<T>, path: Path): Promise<unknown> => handle.undo({ in: path })
void generic(plan, ["title"])
export const bound = <T>(handle: DocHandle<T>, path: Path): (() => void) => bindText(input, handle, path)

plan.change((draft) => {
    insertInOrder(draft.cards, "x", { title: "", tags: [] })
    insertInOrder(draft.cards, "x", card)
    insertInOrder(draft.cards, "x", { ...card, title: "copy" }, 0)
    insertInOrder(draft.items, "x", item)
    insertInOrder(draft.items, "x", { text: "", state: new ImmutableString("open") })
    insertInOrder(draft.items, "x", { text: "", state: "open" })
    for (const [key, each] of inOrder(draft.items)) {
        same<Draft<Item>>()(each)
        moveInOrder(draft.items, key, 0)
    }
    insertAt(draft.list, 0, card)
    // @ts-expect-error Its tags are missing.
    insertInOrder(draft.cards, "x", { title: "" })
    // @ts-expect-error Its tags are texts.
    insertInOrder(draft.cards, "x", { title: "", tags: [1] })
    // @ts-expect-error A card.
    insertInOrder(draft.items, "x", card)
})

const json = toJSON(plan.doc())
await repo.create(fromJSON(json))
same<DocHandle<Plan>>()(await repo.create<Plan>(fromJSON(json)))
same<Plan>()(fromJSON<Plan>(json))
plan.change((draft) => {
    draft.list = fromJSON(json)
})
// @ts-expect-error Only what JSON can say.
fromJSON(new Date())
