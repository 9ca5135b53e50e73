// Tells others what is selected in an editor, and the editor where others are.

import { ChangeSet, type ChangeDesc } from "@codemirror/state"
import type { EditorView, ViewUpdate } from "@codemirror/view"
import type { DocHandle } from "../handle.js"
import type { Place } from "../place.js"
import { samePath } from "../text.js"
import { movePeer, peers, setPeers, type Peer } from "./peers.js"
import {
    colorOf,
    isSelection,
    nameOf,
    type TextPresence,
    type TextPresenceState,
    type TextSelection,
    type TextUser,
} from "./presence-state.js"
import { Timers } from "./timers.js"

/** Others learn of a new selection after this long. */
const TELL_MS = 60

/** After an edit, the places of others are asked for again so much later. */
const LOCATE_MS = 500

/** What is known of the text that an editor shows. */
export interface ShownText {
    /** Where a place in the editor is in the document; undefined while their texts may differ otherwise than is known. */
    readonly shown: ((at: number) => number) | undefined
}

export class SelectionSharing<T> {
    readonly #view: EditorView
    readonly #handle: DocHandle<T>
    readonly #place: Place
    readonly #presence: TextPresence
    readonly #binding: ShownText
    readonly #timers = new Timers()
    readonly #off: () => void
    #destroyed = false
    #telling = false
    #tellAgain = false
    #locating = false
    #locateAgain = false
    #since: ChangeDesc | undefined

    constructor(
        view: EditorView,
        handle: DocHandle<T>,
        place: Place,
        presence: TextPresence,
        user: TextUser | undefined,
        binding: ShownText,
    ) {
        this.#view = view
        this.#handle = handle
        this.#place = place
        this.#presence = presence
        this.#binding = binding
        if (user) presence.set({ user })
        this.#off = presence.on("change", () => void this.#locate())
        this.#timers.later("locate", 0, () => void this.#locate())
    }

    update(update: ViewUpdate): void {
        if (update.docChanged) {
            if (this.#since) this.#since = this.#since.composeDesc(update.changes)
            this.#timers.later("locate", LOCATE_MS, () => void this.#locate())
        }
        if (update.docChanged || update.selectionSet || update.focusChanged) {
            this.#timers.later("tell", TELL_MS, () => void this.#tell())
        }
    }

    destroy(): void {
        this.#destroyed = true
        this.#off()
        this.#timers.stop()
        this.#setSelection(null)
    }

    /** Tells the others what is selected here. */
    async #tell(): Promise<void> {
        if (this.#destroyed) return
        if (this.#telling) {
            this.#tellAgain = true
            return
        }
        this.#telling = true
        try {
            do {
                this.#tellAgain = false
                const selection = await this.#selection()
                if (!this.#destroyed) this.#setSelection(selection)
            } while (this.#tellAgain && !this.#destroyed)
        } catch {
            // Of a text that is gone there is nothing to tell.
        } finally {
            this.#telling = false
        }
    }

    #setSelection(selection: TextSelection | null): void {
        const told = this.#presence.local.selection
        // Another editor of this page may have the selection by now.
        if (selection === null && !(isSelection(told) && this.#isHere(told))) return
        this.#presence.set({ selection })
    }

    async #selection(): Promise<TextSelection | null> {
        const place = this.#binding.shown
        const { path, name } = this.#place
        if (!this.#view.hasFocus || !place || !path) return null
        const { main } = this.#view.state.selection
        const head = this.#handle.cursor(this.#place, place(main.head))
        const anchor = main.empty ? head : this.#handle.cursor(this.#place, place(main.anchor))
        const selection = { path, anchor: await anchor, head: await head }
        return name === undefined ? selection : { ...selection, text: name }
    }

    /** Whether somebody's selection is in the text of this editor. */
    #isHere({ text, path }: TextSelection): boolean {
        const { name, path: own } = this.#place
        if (text !== undefined && name !== undefined) return text === name
        return own !== undefined && samePath(path, own)
    }

    /** Finds where the others are now. */
    async #locate(): Promise<void> {
        if (this.#destroyed) return
        if (this.#locating) {
            this.#locateAgain = true
            return
        }
        this.#locating = true
        try {
            do {
                this.#locateAgain = false
                this.#since = ChangeSet.empty(this.#view.state.doc.length).desc
                const asked = [...this.#presence.peers].map(([id, { state }]) => this.#peer(id, state))
                const found = (await Promise.all(asked)).filter((peer) => peer !== undefined)
                if (this.#destroyed) return
                const { since, view } = { since: this.#since, view: this.#view }
                const moved = found.map((peer) => movePeer(peer, since))
                const before = view.state.field(peers, false) ?? []
                if (before.length + moved.length > 0) view.dispatch({ effects: setPeers.of(moved) })
            } while (this.#locateAgain)
        } finally {
            this.#since = undefined
            this.#locating = false
        }
    }

    async #peer(id: string, state: TextPresenceState): Promise<Peer | undefined> {
        const [place, handle] = [this.#place, this.#handle]
        const { selection, user } = state
        if (!isSelection(selection) || !this.#isHere(selection)) return undefined
        try {
            const [anchor, head] = await Promise.all([
                handle.position(place, selection.anchor),
                handle.position(place, selection.head),
            ])
            if (anchor === undefined || head === undefined) return undefined
            const name = nameOf(user)
            return { id, anchor, head, at: selection.head, name, color: colorOf(user) }
        } catch {
            // A peer may send anything as a cursor.
            return undefined
        }
    }
}
