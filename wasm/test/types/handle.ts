// Handles: reading, the past, events, presence.

import {
    Counter,
    ImmutableString,
    Presence,
    type ChangeEvent,
    type ChangeGroup,
    type ChangeInfo,
    type Cursor,
    type DocHandle,
    type Draft,
    type EphemeralMessage,
    type Heads,
    type Level,
    type Mark,
    type Patch,
    type PresencePeer,
    type Prop,
    type Repo,
    type Scalar,
    type Span,
    type SyncStatus,
    type Undoable,
    type View,
} from "reconverge"
import * as reconverge from "reconverge"
import { same } from "./same.js"

interface List {
    readonly title: string
    readonly tasks: readonly { readonly text: string; readonly done: boolean }[]
}

declare const repo: Repo
const list = await repo.create<List>({ title: "", tasks: [] })

same<List>()(list.doc())
same<boolean | undefined>()(list.doc().tasks[0]?.done)
// @ts-expect-error What is shown is frozen.
list.doc().title = ""

// Fixed strings are shown as plain ones, wherever they are, and all else as it is declared.
interface Item {
    readonly id: ImmutableString
    readonly kind?: ImmutableString
    readonly title: string
    readonly votes: Counter
    readonly due: Date | null
    readonly icon: Uint8Array
    readonly state: "open" | "done"
    readonly big: bigint
    readonly tags: readonly ImmutableString[]
    readonly pair: [ImmutableString, number]
    readonly extra: unknown
    readonly inner: Readonly<Record<string, { id: ImmutableString }>>
    readonly children: readonly Item[]
}
interface ShownItem {
    readonly id: string
    readonly kind?: string
    readonly title: string
    readonly votes: Counter
    readonly due: Date | null
    readonly icon: Uint8Array
    readonly state: "open" | "done"
    readonly big: bigint
    readonly tags: readonly string[]
    readonly pair: readonly [string, number]
    readonly extra: unknown
    readonly inner: Readonly<Record<string, { readonly id: string }>>
    readonly children: readonly ShownItem[]
}
const item = await repo.find<Item>("automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu")
same<ShownItem>()(item.doc())
same<View<Item>>()(item.doc())
same<ShownItem>()(await item.view([]))
item.on("change", ({ doc, before }) => {
    same<ShownItem>()(doc)
    same<ShownItem>()(before)
})
same<string | undefined>()(item.doc().children[0]?.children[0]?.tags[0])
// @ts-expect-error What is shown is a plain string.
item.doc().id.val
// @ts-expect-error What is shown is no item as it is declared.
const declared: Item = item.doc()
same<unknown>()((await repo.find("automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu")).doc())
const begun = await repo.create({ id: new ImmutableString("a"), n: new Counter() })
same<{ readonly id: string; readonly n: Counter }>()(begun.doc())
// Of a type that is not known yet, the keys that are.
function titleOf<T extends { title: string }>(handle: DocHandle<T>): string {
    return handle.doc().title
}
same<string>()(titleOf(item))

// @ts-expect-error Handles come from a repo.
new reconverge.DocHandle()
// @ts-expect-error Internal.
list.resume()
// @ts-expect-error Internal.
list.handle({ type: "deleted", document: "" })

same<void>()(list.change(() => {}))
list.change((draft) => same<Draft<List>>()(draft), { message: "a note" })
// @ts-expect-error There is no such option.
list.change(() => {}, { time: 0 })

same<SyncStatus>()(list.status)
same<"saved" | "saving" | "offline" | "refused">()(list.status.state)
same<string | undefined>()(list.status.storageError)
const level: Level = "replicated"
same<void>()(await list.whenSynced({ level, signal: new AbortController().signal }))
// @ts-expect-error There is no such level.
await list.whenSynced({ level: "everywhere" })

// The past.
const heads = await list.heads()
same<Heads>()(heads)
same<List>()(await list.view(heads))
const abort = { signal: new AbortController().signal }
same<ChangeInfo[]>()(await list.history())
same<ChangeInfo[]>()(await list.history({ path: ["tasks"], ...abort }))
same<ChangeInfo[]>()(await list.history({ path: list.place(["tasks", 0]) }))
same<ChangeGroup[]>()(await list.history({ path: ["tasks"], group: 60 }))
// @ts-expect-error There is no such option.
await list.history({ paths: ["tasks"] })
same<string>()(await list.actor())
same<List>()(await list.view(heads, abort))
same<Patch[]>()(await list.diff([], heads, abort))
same<void>()(await list.restore(["tasks", 0], heads, { message: "back" }))
same<Record<string, unknown> | undefined>()(await list.conflicts(["tasks", 0]))
same<Heads>()(await list.changeAt(heads, (draft) => void draft.tasks.push({ text: "", done: false })))
// @ts-expect-error It is not in the document.
await list.changeAt(heads, (draft) => void (draft.owner = "ann"))
await list.merge(await list.clone())
// @ts-expect-error A document of another kind.
await list.merge(await repo.create({ title: 1 }))
same<"all" | "part" | false>()(await list.undo())
same<"all" | "part" | false>()(await list.redo({ in: ["tasks"] }))
same<Undoable>()(list.undoable({ in: list.place(["tasks", 0]) }))
list.change((draft) => draft.tasks.splice(0, 1), { undo: "cleaning" })
list.change((draft) => draft.tasks.splice(0, 1), { undo: false, message: "tidy" })
// @ts-expect-error It is a name or false.
list.change((draft) => draft.tasks.splice(0, 1), { undo: true })
same<boolean>()(list.canUndo)
// @ts-expect-error It follows from what was done.
list.canRedo = true

for (const patch of await list.diff([], heads)) {
    same<Prop[]>()(patch.path)
    if (patch.action === "splice") same<string>()(patch.value)
    if (patch.action === "inc") same<number>()(patch.value)
    if (patch.action === "del") same<number | undefined>()(patch.length)
    if (patch.action === "mark") same<Mark[]>()(patch.marks)
}

// Places and marks of texts.
const cursor = await list.cursor(["title"], 0)
same<Cursor>()(cursor)
same<number>()(await list.position(["title"], cursor))
same<Mark[]>()(await list.marks(["tasks", 0, "text"]))
const spans = await list.spans(["tasks", 0, "text"])
same<Span[]>()(spans)
for (const span of spans) {
    if (span.type === "text") same<Record<string, Scalar> | undefined>()(span.marks)
    else same<Record<string, unknown>>()(span.value)
    // @ts-expect-error A block has none.
    if (span.type === "block") span.marks
}
// @ts-expect-error A path is of keys and indices.
await list.marks([{}])
// @ts-expect-error A path is a list.
await list.marks("title")

// Events,
const off = list.on("change", (event) => {
    same<ChangeEvent<List>>()(event)
    same<List>()(event.before)
    same<"local" | "remote">()(event.source)
    same<readonly Patch[]>()(event.patches)
})
same<() => void>()(off)
list.on("status", (status) => same<SyncStatus>()(status))
list.on("ephemeral-message", (message) => same<EphemeralMessage>()(message))
list.on("undoable", (undoable) => same<Undoable>()(undoable))
list.on("delete", (nothing) => same<undefined>()(nothing))
list.on("error", (error) => same<Error>()(error))
const listener = (event: ChangeEvent<List>): void => void event.doc.title
list.on("change", listener)
list.off("change", listener)
// @ts-expect-error A listener of another event.
list.on("status", listener)
// @ts-expect-error There is no such event.
list.on("changed", () => {})

// and as iterations.
const { signal } = new AbortController()
for await (const { doc } of list.changes(signal)) same<List>()(doc)
for await (const status of list.statuses()) same<SyncStatus>()(status)
for await (const { senderId, message } of list.messages()) {
    same<string>()(senderId)
    same<unknown>()(message)
}

list.broadcast({ wave: true })
same<void>()(list.release())

// Presence.
interface Person {
    readonly name: string
    readonly typing?: boolean
}
const presence = new Presence<Person>(list, { state: { name: "Ann" }, heartbeatMs: 5_000 })
same<Person>()(presence.local)
same<ReadonlyMap<string, PresencePeer<Person>>>()(presence.peers)
for (const { state, peerId, lastSeenAt } of presence.peers.values()) {
    same<Person>()(state)
    same<string>()(peerId)
    same<number>()(lastSeenAt)
}
presence.set({ typing: true })
// @ts-expect-error It is not in the state.
presence.set({ color: "red" })
// @ts-expect-error Presence begins with a whole state.
new Presence<Person>(list, { state: {} })
// @ts-expect-error There is no such event.
presence.on("peers", () => {})
same<() => void>()(presence.on("change", () => {}))
same<Presence<{ x: number }>>()(new Presence(list, { state: { x: 1 } }))
presence.stop()
