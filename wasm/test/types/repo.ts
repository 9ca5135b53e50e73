// Repos: opening them, and the documents in them.

import {
    IndexedDbStorage,
    MemoryStorage,
    Repo,
    RepoError,
    StorageError,
    requestPersistence,
    type AutomergeUrl,
    type ConnectionStatus,
    type DocHandle,
    type FailureCode,
    type Persistence,
    type RepoOptions,
    type Storage,
    type StorageFailure,
    type Unfetched,
    type WipeOptions,
} from "reconverge"
import { Repo as RepoOfBase64 } from "reconverge/base64"
import { same } from "./same.js"

interface Task {
    readonly text: string
    readonly done: boolean
}

interface List {
    readonly title: string
    readonly tasks: readonly Task[]
}

const options: RepoOptions = {
    relay: ["ws://127.0.0.1:3030", "wss://example.org"],
    token: "secret",
    storage: "indexeddb",
    name: "lists",
    peerId: "ann",
    worker: true,
}
const repo = await Repo.open(options)
same<Repo>()(repo)
await Repo.open()
await Repo.open({ relay: "ws://127.0.0.1:3030", storage: new MemoryStorage() })
await Repo.open({ storage: new IndexedDbStorage({ name: "lists", openMsMax: 1_000 }) })
// @ts-expect-error There is no such place.
await Repo.open({ storage: "localstorage" })
// @ts-expect-error There is no such option.
await Repo.open({ relays: [] })
// @ts-expect-error It takes a moment.
new Repo()
// The entries export the same.
same<typeof Repo>()(RepoOfBase64)

// Contents by what a document begins with,
const inferred = await repo.create({ title: "Groceries", count: 1 })
same<DocHandle<{ title: string; count: number }>>()(inferred)
// by a type,
const list = await repo.create<List>({ title: "Groceries", tasks: [] })
same<DocHandle<List>>()(list)
// @ts-expect-error The tasks are missing.
await repo.create<List>({ title: "Groceries" })
// @ts-expect-error A title is no number.
await repo.create<List>({ title: 1, tasks: [] })
// @ts-expect-error A document is an object.
await repo.create("Groceries")
// @ts-expect-error A list has no holes.
await repo.create({ list: [undefined] })
// @ts-expect-error A list has no holes.
await repo.create({ list: ["a", undefined] })
await repo.create({
    list: ["a", null],
    any: [] as any[],
    unknown: [] as unknown[],
    maybe: [{ note: undefined as string | undefined }],
})
// or unknown.
const empty = await repo.create()
same<DocHandle<Record<string, unknown>>>()(empty)
// Nothing is in an empty document, whatever will be.
const filled = await repo.create<List>()
same<DocHandle<Partial<List>>>()(filled)
same<string | undefined>()(filled.doc().title)
filled.change((draft) => {
    draft.title = "Groceries"
    draft.tasks = []
    draft.tasks.push({ text: "milk", done: false })
    // @ts-expect-error A title is no number.
    draft.title = 1
})
// @ts-expect-error The tasks may be missing.
filled.doc().tasks.length
// @ts-expect-error It is no whole list.
const whole: DocHandle<List> = filled
// Who knows that it is all there by now says so.
same<DocHandle<List>>()(filled as DocHandle<List>)

const found = await repo.find<List>("automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu")
same<DocHandle<List>>()(found)
same<DocHandle<unknown>>()(await repo.find(list.url, { signal: AbortSignal.timeout(1_000) }))
same<AutomergeUrl>()(found.url)
same<string>()(found.documentId)
// @ts-expect-error A url does not change.
found.url = list.url

same<DocHandle<List>>()(await repo.import<List>(new Uint8Array()))
// @ts-expect-error Bytes are not a text.
await repo.import("")
same<Uint8Array>()(await repo.export(list.url))
same<void>()(await repo.delete(list.url))
same<void>()(await repo.flush())
const unfetched = await repo.prefetch([list.url, "automerge:4NMNnkMhL8jXrdJ9jamS58PAVdXu"], {
    signal: AbortSignal.timeout(1_000),
})
same<Unfetched[]>()(unfetched)
for (const { url, error } of unfetched) {
    same<string>()(url)
    same<RepoError>()(error)
}
// @ts-expect-error It takes several.
await repo.prefetch(list.url)
const wipeOptions: WipeOptions = { evenUnsent: true, signal: AbortSignal.timeout(1_000) }
same<AutomergeUrl[]>()(await repo.wipe(wipeOptions))
same<AutomergeUrl[]>()(await repo.wipe())
// @ts-expect-error There is no such option.
await repo.wipe({ force: true })
same<string>()(repo.peerId)

same<ConnectionStatus[]>()(repo.connections)
const off = repo.on("connection", (connection) => {
    same<ConnectionStatus>()(connection)
    same<"connected" | "connecting" | "offline" | "refused">()(connection.state)
    same<string | undefined>()(connection.reason)
})
same<() => void>()(off)
repo.on("problem", (problem) => same<Error>()(problem))
// @ts-expect-error There is no such event.
repo.on("document", () => {})
repo.goOffline()
repo.goOnline()

try {
    await repo.find(list.url)
} catch (error) {
    if (error instanceof RepoError) same<FailureCode>()(error.code)
    if (error instanceof RepoError) same<readonly AutomergeUrl[]>()(error.urls)
    if (error instanceof StorageError) same<StorageFailure>()(error.failure)
}
same<Persistence>()(await requestPersistence())

// A storage of one's own needs all of the contract.
const storage: Storage = new MemoryStorage()
await storage.commit([
    { put: ["a", "b"], data: new Uint8Array() },
    { remove: ["c"] },
    { removeRange: ["d"], below: "e" },
])
// @ts-expect-error Only some of it.
await Repo.open({ storage: { load: async () => undefined } })

{
    await using other = await Repo.open({ storage: "memory" })
    using handle = await other.create<List>({ title: "", tasks: [] })
    handle.release()
}
await repo.shutdown()
