// Documents in frameworks and editors.

import { EditorState, type Extension } from "@codemirror/state"
import {
    Presence,
    type Counter,
    type DocHandle,
    type ImmutableString,
    type PresencePeer,
    type Repo,
    type RepoError,
    type SyncStatus,
    type View,
} from "reconverge"
import { reconvergeText, type TextPresenceState } from "reconverge/codemirror"
import {
    RepoProvider,
    useDocument,
    useHandle,
    usePresence,
    useRepo,
    useSyncStatus,
    type ChangeDocument,
} from "reconverge/react"
import { documentStore, goneStore, presenceStore, statusStore, textInput, type Readable } from "reconverge/svelte"
import * as vue from "reconverge/vue"
import { createElement } from "react"
import { ref, type ObjectDirective, type ShallowRef } from "vue"
import { same } from "./same.js"

interface List {
    readonly title: string
    readonly tasks: readonly { readonly text: string; readonly done: boolean }[]
    readonly votes: Counter
}

interface Keyed {
    readonly id: ImmutableString
}

declare const repo: Repo
declare const handle: DocHandle<List>
declare const keyed: DocHandle<Keyed>
declare const url: string

export function Component() {
    same<Repo>()(useRepo())
    same<DocHandle<List>>()(useHandle<List>(url))

    const [list, change] = useDocument<List>(url)
    same<List>()(list)
    same<ChangeDocument<List>>()(change)
    change((draft) => void draft.tasks.push({ text: "", done: false }), { message: "a note" })
    // @ts-expect-error No task.
    change((draft) => void draft.tasks.push("milk"))

    // The type of the selector's argument tells the document's, its result the value's.
    const [open, changeOpen] = useDocument(url, (list: List) => list.tasks.filter((task) => !task.done))
    same<{ readonly text: string; readonly done: boolean }[]>()(open)
    changeOpen((draft) => void (draft.title = "Groceries"))
    const [count] = useDocument(
        url,
        (list: List) => list.tasks.length,
        (one, other) => {
            same<number>()(one)
            return one === other
        },
    )
    same<number>()(count)
    const [title] = useDocument<List, string>(url, (list) => list.title)
    same<string>()(title)
    // @ts-expect-error Not in the document.
    useDocument(url, (list: List) => list.owner)
    useDocument(
        url,
        // @ts-expect-error Of other values than those that are compared.
        (list: List) => list.title,
        (one: number, other: number) => one === other,
    )

    // Fixed strings are shown as plain ones.
    const [{ id }, changeKeyed] = useDocument<Keyed>(url)
    same<string>()(id)
    changeKeyed((draft) => same<string | ImmutableString>()(draft.id))
    const [selected] = useDocument(url, ({ id }: View<Keyed>) => id)
    same<string>()(selected)
    // @ts-expect-error A selector gets what is shown.
    useDocument<Keyed, ImmutableString>(url, ({ id }) => id)

    same<SyncStatus>()(useSyncStatus(handle))
    const { peers, local, set } = usePresence(handle, { name: "Ann", typing: false })
    same<ReadonlyMap<string, PresencePeer<{ name: string; typing: boolean }>>>()(peers)
    same<{ name: string; typing: boolean }>()(local)
    set({ typing: true })
    // @ts-expect-error Not in the state.
    set({ color: "red" })
    return createElement(RepoProvider, { repo }, list.title)
}
createElement(RepoProvider, { relay: "wss://example.org", author: "ann", fallback: "one moment" })
// @ts-expect-error A relay has a url.
createElement(RepoProvider, { relay: 5 })

// Svelte.
same<Readable<List>>()(documentStore(handle))
documentStore(handle).subscribe((list) => same<List>()(list))
same<Readable<{ readonly id: string }>>()(documentStore(keyed))
same<Readable<RepoError | undefined>>()(goneStore(handle))
statusStore(handle).subscribe((status) => same<SyncStatus>()(status))
const store = presenceStore(handle, { state: { name: "Ann" } })
store.set({ name: "Bob" })
store.subscribe(({ peers, local }) => {
    same<{ name: string }>()(local)
    same<ReadonlyMap<string, PresencePeer<{ name: string }>>>()(peers)
})

declare const element: HTMLInputElement
declare const somewhere: (string | number)[]
const action = textInput(element, { handle, path: ["tasks", 0, "text"] })
action.update({ handle, path: ["tasks", 0, "text"] })
textInput(element, { handle: undefined as DocHandle<List> | undefined, path: ["title"], onGone: () => {} })
textInput(element, { handle, path: handle.place(["title"]) })
textInput(element, { handle, path: somewhere })
textInput(element, { handle: handle as DocHandle<any>, path: ["anything"] })
// @ts-expect-error Not in the document.
textInput(element, { handle, path: ["titel"] })
// @ts-expect-error No text.
textInput(element, { handle, path: ["tasks", 0, "done"] })

// Vue.
const used = vue.useDocument<List>(repo, ref(url))
same<Readonly<ShallowRef<List | undefined>>>()(used.doc)
used.change((draft) => void (draft.title = "Groceries"))
vue.useDocument<List>(repo, () => undefined)
same<string | undefined>()(vue.useDocument<Keyed>(repo, url).doc.value?.id)
same<Readonly<ShallowRef<SyncStatus | undefined>>>()(vue.useSyncStatus(used.handle))
const others = vue.usePresence(used.handle, { state: { name: "Ann" } })
same<{ name: string }>()(others.local.value)
// @ts-expect-error Not in the state.
others.set({ color: "red" })

// As in a template.
const directive: ObjectDirective<HTMLInputElement | HTMLTextAreaElement, vue.TextInput> = vue.vTextInput
same<typeof directive>()(directive)
const inTemplate = (_shown: vue.TextInput): void => {}
inTemplate({ handle, path: ["tasks", 0, "text"] })
inTemplate({ handle: used.handle.value, path: ["title"], onGone: () => {} })
inTemplate({ handle: keyed, path: keyed.place(["id"]) })
// @ts-expect-error No handle.
inTemplate({ handle: repo, path: ["title"] })

// CodeMirror.
const presence = new Presence<TextPresenceState>(handle, { state: {} })
const extension = reconvergeText(handle, ["title"], { presence, user: { name: "Ann", color: "red" } })
same<Extension>()(extension)
EditorState.create({ extensions: [extension] })
// A presence may hold more.
reconvergeText(handle, ["title"], {
    presence: new Presence<TextPresenceState & { page: number }>(handle, { state: { page: 1 } }),
})
// @ts-expect-error A path is a list.
reconvergeText(handle, "title")
