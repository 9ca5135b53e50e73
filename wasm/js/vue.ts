/**
 * Documents in Vue 3. What the composables return are shallow refs: a document is frozen plain
 * data, whose parts need not be made reactive.
 *
 * They listen until the component, or the effect scope, that called them is gone.
 *
 * @module reconverge/vue
 */

import { onScopeDispose, shallowRef, toValue, watch, type MaybeRefOrGetter, type ShallowRef } from "vue"

import { connectionOf, onConnection } from "./connection.js"
import type { Draft } from "./draft.js"
import type { ChangeOptions, DocHandle, UndoOptions } from "./handle.js"
import { TextBinding, type TextElement, type TextInputOptions } from "./input.js"
import type { Place } from "./place.js"
import {
    Presence,
    type PresenceChannel,
    type PresenceHandle,
    type PresenceOptions,
    type PresencePeer,
} from "./presence.js"
import type { Repo } from "./repo.js"
import type { Connection, Path, PathIn, SyncStatus, Synchronous, TextPath, Undoable, View } from "./types.js"

/** A document on its way, or found, or not. */
export interface UsedDocument<T> {
    /** The document; undefined until it is found, and when it was deleted. */
    readonly doc: Readonly<ShallowRef<View<T> | undefined>>
    /** Its handle; undefined until it is found, and when it was deleted. */
    readonly handle: Readonly<ShallowRef<DocHandle<T> | undefined>>
    /** Why it was not found; a `RepoError` with code `deleted` if it was deleted since, as by `Repo.wipe`. */
    readonly error: Readonly<ShallowRef<Error | undefined>>
    /** Edits the document; all edits of `fn` are one change. Throws while the document is not there. */
    readonly change: <R>(fn: (draft: Draft<T>) => Synchronous<R>, options?: ChangeOptions) => void
}

/** What {@link usePresence} returns. */
export interface UsedPresence<S extends object> {
    /** The others, by a name that tells tabs apart. */
    readonly peers: Readonly<ShallowRef<ReadonlyMap<string, PresencePeer<S>>>>
    /** One's own state. */
    readonly local: Readonly<ShallowRef<S>>
    /** Changes some of one's own state, and tells the others. */
    readonly set: (changes: Partial<S>) => void
    /** The same for editors, such as `reconvergeText`: so that one is one peer, whatever one does. */
    readonly presence: PresenceHandle<S>
}

/** Finds a document and follows it; `url` may be a ref. A url that is empty is no document. */
export function useDocument<T>(repo: Repo, url: MaybeRefOrGetter<string | undefined>): UsedDocument<T> {
    const doc = shallowRef<View<T>>()
    const handle = shallowRef<DocHandle<T>>()
    const error = shallowRef<Error>()

    watch(
        () => toValue(url),
        (now, _before, onCleanup) => {
            doc.value = handle.value = error.value = undefined
            if (!now) return
            const ended = new AbortController()
            onCleanup(() => ended.abort())
            void repo.find<T>(now, { signal: ended.signal }).then(
                (found) => {
                    if (ended.signal.aborted) return found.release()
                    handle.value = found
                    doc.value = found.doc()
                    const offs = [
                        found.on("change", (event) => void (doc.value = event.doc)),
                        found.on("delete", () => {
                            error.value = found.failure
                            doc.value = handle.value = undefined
                        }),
                    ]
                    ended.signal.addEventListener("abort", () => {
                        for (const off of offs) off()
                        found.release()
                    })
                },
                (reason: unknown) => {
                    if (ended.signal.aborted) return
                    error.value = reason instanceof Error ? reason : new Error(String(reason))
                },
            )
        },
        { immediate: true },
    )
    return {
        doc,
        handle,
        error,
        change(fn, options) {
            if (!handle.value) throw error.value ?? new Error("the document is not there yet")
            handle.value.change(fn, options)
        },
    }
}

/**
 * How safe the changes of a document are, or of a repo those of all its documents; undefined while
 * there is none.
 */
export function useSyncStatus<T>(
    told: MaybeRefOrGetter<DocHandle<T> | Repo | undefined>,
): Readonly<ShallowRef<SyncStatus | undefined>> {
    const status = shallowRef<SyncStatus>()
    const changed = (now: SyncStatus): void => void (status.value = now)
    watch(
        () => toValue(told),
        (now, _before, onCleanup) => {
            status.value = now?.status
            if (now) onCleanup("doc" in now ? now.on("status", changed) : now.on("status", changed))
        },
        { immediate: true },
    )
    return status
}

/**
 * Whether there is something to take back by `undo` of the handle, and to do again; with `in`, of what
 * happened at that path or place.
 */
export function useUndoable<T, const P extends Path>(
    handle: MaybeRefOrGetter<DocHandle<T> | undefined>,
    options?: UndoOptions<(P & PathIn<T, P>) | Place>,
): Readonly<ShallowRef<Undoable>> {
    const within: UndoOptions | undefined = options
    const undoable = shallowRef<Undoable>({ canUndo: false, canRedo: false })
    watch(
        () => toValue(handle),
        (now, _before, onCleanup) => {
            const tell = (): void => void (undoable.value = now?.undoable(within) ?? { canUndo: false, canRedo: false })
            tell()
            if (now) onCleanup(now.on("undoable", tell))
        },
        { immediate: true },
    )
    return undoable
}

/** Whether any relay is connected, and the state of the connection to each. */
export function useConnection(repo: Repo): Readonly<ShallowRef<Connection>> {
    const connection = shallowRef(connectionOf(repo))
    onScopeDispose(onConnection(repo, () => void (connection.value = connectionOf(repo))))
    return connection
}

/** Who else has the document open. One is there oneself while there is a handle. */
export function usePresence<S extends object>(
    handle: MaybeRefOrGetter<PresenceChannel | undefined>,
    options: PresenceOptions<S>,
): UsedPresence<S> {
    const peers = shallowRef<ReadonlyMap<string, PresencePeer<S>>>(new Map())
    const local = shallowRef(options.state) as ShallowRef<S>
    let presence: Presence<S> | undefined

    const end = (): void => {
        presence?.stop()
        presence = undefined
        peers.value = new Map()
    }
    watch(
        () => toValue(handle),
        (now) => {
            end()
            if (!now) return
            const begun = new Presence<S>(now, { ...options, state: local.value })
            begun.on("change", () => void (peers.value = begun.peers))
            presence = begun
        },
        { immediate: true },
    )
    onScopeDispose(end)
    const set = (changes: Partial<S>): void => {
        local.value = { ...local.value, ...changes }
        presence?.set(changes)
    }
    const shared: PresenceHandle<S> = {
        get local() {
            return local.value
        },
        get peers() {
            return peers.value
        },
        set,
        on: (_event, listener) => watch(peers, () => listener(), { flush: "sync" }),
    }
    return { peers, local, set, presence: shared }
}

/** What the directive {@link vTextInput} shows. */
export interface TextInput<T = unknown, P extends Path = Path> extends TextInputOptions {
    /** The document; without one nothing is shown, and the element is read-only. */
    readonly handle: DocHandle<T> | undefined
    /** Where the text is. */
    readonly path: (P & TextPath<T, P>) | Place
}

const inputs = new WeakMap<TextElement, TextBinding>()

function show<T, const P extends Path>(element: TextElement, { value }: { value: TextInput<T, P> }): void {
    let binding = inputs.get(element)
    if (!binding) inputs.set(element, (binding = new TextBinding(element)))
    const { handle, path, ...options } = value
    binding.bind(handle, path, options)
}

/**
 * A directive that shows a text in an `<input>` or `<textarea>`, and lets several people edit it:
 * `<input v-text-input="{ handle, path: ['title'] }" />`, without `v-model`. It stays with the text
 * that was at `path` when that was given. If what is there is no text, but a fixed string,
 * a counter or the like, the element is read-only and the console has a warning.
 */
export const vTextInput = {
    /** Begins. */
    mounted: show,
    /** Goes on with the same text, or another. */
    updated: show,
    /** Ends. */
    unmounted: (element: TextElement): void => inputs.get(element)?.end(),
}
