/**
 * Documents as Svelte stores: `$doc` in a component, of Svelte 4 or 5, follows the document.
 *
 * They need nothing of Svelte itself, only what a store is: `subscribe` calls back at once and after
 * every change, until the function that it returned is called.
 *
 * @module reconverge/svelte
 */

import { connectionOf, onConnection } from "./connection.js"
import type { DocHandle, UndoOptions } from "./handle.js"
import { TextBinding, type TextElement, type TextInputOptions } from "./input.js"
import type { RepoError } from "./link.js"
import type { Place } from "./place.js"
import {
    Presence,
    type PresenceChannel,
    type PresenceHandle,
    type PresenceOptions,
    type PresencePeer,
} from "./presence.js"
import type { Repo } from "./repo.js"
import type { Connection, Path, PathIn, SyncStatus, TextPath, Undoable, View } from "./types.js"

/** The contract of a store that is only read. */
export interface Readable<V> {
    /** Calls `run` now and after every change; returns what ends that. */
    subscribe(run: (value: V) => void): () => void
}

/** The peers in a document, and one's own state. */
export interface PresenceNow<S extends object> {
    /** The others, by a name that tells tabs apart. */
    readonly peers: ReadonlyMap<string, PresencePeer<S>>
    /** One's own state. */
    readonly local: S
}

/** A store of who else has a document open. */
export interface PresenceStore<S extends object> extends Readable<PresenceNow<S>> {
    /** Changes some of one's own state, and tells the others. */
    set(changes: Partial<S>): void
    /** The same for editors, such as `reconvergeText`: so that one is one peer, whatever one does. */
    readonly presence: PresenceHandle<S>
}

/** The document. Edit it by `handle.change`. */
export function documentStore<T>(handle: DocHandle<T>): Readable<View<T>> {
    return {
        subscribe(run) {
            run(handle.doc())
            return handle.on("change", ({ doc }) => run(doc))
        },
    }
}

/**
 * Undefined while the document can be used, then why it cannot any more: with code `deleted` if it was
 * deleted, as by `Repo.wipe`, or its handle let go of; with `closed` if the repo was shut down.
 *
 * The stores of the document keep what they showed, so show this instead:
 * `{#if $gone}<p>It was deleted.</p>{:else}…{/if}`.
 */
export function goneStore<T>(handle: DocHandle<T>): Readable<RepoError | undefined> {
    return {
        subscribe(run) {
            run(handle.failure)
            return handle.on("close", () => run(handle.failure))
        },
    }
}

/** How safe the changes of a document are, or of a repo those of all its documents. */
export function statusStore<T>(told: DocHandle<T> | Repo): Readable<SyncStatus> {
    return {
        subscribe(run) {
            run(told.status)
            return "doc" in told ? told.on("status", run) : told.on("status", run)
        },
    }
}

/**
 * Whether there is something to take back by `handle.undo`, and to do again; with `in`, of what happened at
 * that path or place.
 */
export function undoableStore<T, const P extends Path>(
    handle: DocHandle<T>,
    options?: UndoOptions<(P & PathIn<T, P>) | Place>,
): Readable<Undoable> {
    const within: UndoOptions | undefined = options
    return {
        subscribe(run) {
            const tell = (): void => run(handle.undoable(within))
            tell()
            return handle.on("undoable", tell)
        },
    }
}

/** Whether any relay is connected, and the state of the connection to each. */
export function connectionStore(repo: Repo): Readable<Connection> {
    return {
        subscribe(run) {
            const tell = (): void => run(connectionOf(repo))
            tell()
            return onConnection(repo, tell)
        },
    }
}

/**
 * Who else has the document open. One is there oneself while the store has a subscriber; make one
 * store per document, as each is a peer of its own to the others.
 */
export function presenceStore<S extends object>(
    handle: PresenceChannel,
    options: PresenceOptions<S>,
): PresenceStore<S> {
    const subscribers = new Set<() => void>()
    let local = options.state
    let presence: Presence<S> | undefined
    const tell = (): void => [...subscribers].forEach((subscriber) => subscriber())
    const nobody = new Map<string, PresencePeer<S>>()
    const store: PresenceStore<S> = {
        subscribe(run) {
            if (!presence) {
                presence = new Presence(handle, { ...options, state: local })
                presence.on("change", tell)
            }
            const subscriber = (): void => run({ peers: presence?.peers ?? nobody, local })
            subscribers.add(subscriber)
            subscriber()
            return () => {
                if (!subscribers.delete(subscriber) || subscribers.size > 0) return
                presence?.stop()
                presence = undefined
            }
        },
        set(changes) {
            local = { ...local, ...changes }
            presence?.set(changes)
            tell()
        },
        presence: {
            get local() {
                return local
            },
            get peers() {
                return presence?.peers ?? nobody
            },
            set: (changes) => store.set(changes),
            on: (_event, listener) => store.subscribe(listener),
        },
    }
    return store
}

/** What the action {@link textInput} shows. */
export interface TextInput<T = unknown, P extends Path = Path> extends TextInputOptions {
    /** The document; without one nothing is shown, and the element is read-only. */
    readonly handle: DocHandle<T> | undefined
    /** Where the text is. */
    readonly path: (P & TextPath<T, P>) | Place
}

/** What an action returns. */
export interface TextInputAction<T = unknown, P extends Path = Path> {
    /** Goes on with the same text, or another. */
    update(shown: TextInput<T, P>): void
    /** Ends. */
    destroy(): void
}

/**
 * An action that shows a text in an `<input>` or `<textarea>`, and lets several people edit it:
 * `<input use:textInput={{ handle, path: ["title"] }} />`, without `bind:value`. It stays with the
 * text that was at `path` when that was given. If what is there is no text, but a fixed string,
 * a counter or the like, the element is read-only and the console has a warning.
 */
export function textInput<T, const P extends Path>(
    element: TextElement,
    shown: TextInput<T, P>,
): TextInputAction<T, P> {
    const binding = new TextBinding(element)
    const update = ({ handle, path, ...options }: TextInput<T, P>): void => binding.bind(handle, path, options)
    update(shown)
    return { update, destroy: () => binding.end() }
}
