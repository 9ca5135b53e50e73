/**
 * A text of a document in CodeMirror 6, edited by many.
 *
 * The editor and the document hold the same text, and tell each other what changed in it. What the
 * user types becomes one change of the document; what others did becomes a transaction of the
 * editor that neither comes back nor enters CodeMirror's own history: undo is the document's.
 *
 * There is one exception: while text is being composed (by an input method, or on most phones in
 * every word), replacing what lies around it would end the composition. What others did to that
 * line waits, for some seconds at the most, and what the user does meanwhile is carried over it.
 *
 * @module reconverge/codemirror
 */

import {
    Annotation,
    ChangeSet,
    EditorSelection,
    EditorState,
    Prec,
    Text,
    Transaction,
    type Extension,
    type TransactionSpec,
} from "@codemirror/state"
import { EditorView, ViewPlugin, keymap, logException, type PluginValue, type ViewUpdate } from "@codemirror/view"

import { peersShown } from "./codemirror/peers.js"
import type { TextPresence, TextUser } from "./codemirror/presence-state.js"
import { SelectionSharing } from "./codemirror/sharing.js"
import { Timers } from "./codemirror/timers.js"
import { splice } from "./draft.js"
import type { DocHandle } from "./handle.js"
import { Place } from "./place.js"
import { HOLD_MS, PATCHES_MAX, difference, keepFocus, wholeCharacters } from "./text.js"
import { type Node, editsOf } from "./tree.js"
import type { ChangeEvent, Patch, Path, TextPath } from "./types.js"

export type { TextPeer, TextPresence, TextPresenceState, TextSelection, TextUser } from "./codemirror/presence-state.js"

/** What an editor shows besides the text. */
export interface TextOptions {
    /** Shows the carets and selections of others, and this editor's to them. */
    readonly presence?: TextPresence
    /** Told by `presence`, if it is not told already. */
    readonly user?: TextUser
    /** Called when the text is not there any more: it, or what it was in, was deleted. */
    readonly onGone?: () => void
}

/**
 * Binds an editor to the text at `path`, or at a place.
 *
 * The editor shows that text, whatever `doc` it was made with, wherever in a list it is by then. It
 * takes no edits while there is none, and has the class `cm-noText`; of a text that was deleted it
 * shows what it was. Leave out CodeMirror's `history()`: it would undo what others wrote. The keys for undo and redo
 * take back what one wrote in this text, by whatever. Carets and selections
 * can be styled: `.cm-peerSelection`, `.cm-peerCaret` and `.cm-peerName`, with the peer's colour in
 * `--peer` and one that reads on it in `--peer-text`.
 *
 * @throws TypeError if what is at `path` is no text, but a fixed string, a counter or the like.
 */
export function reconvergeText<T, const P extends Path>(
    handle: DocHandle<T>,
    path: (P & TextPath<T, P>) | Place,
    options: TextOptions = {},
): Extension {
    const place = path instanceof Place ? path : handle.place(path)
    if (place.whyNoText) throw new TypeError(place.whyNoText)
    const binding = ViewPlugin.define((view) => new Binding(view, handle, place, options))
    const isThere = (): boolean => !handle.isClosed && place.text !== undefined
    const undo = (view: EditorView): boolean => view.plugin(binding)?.step("undo") ?? false
    const redo = (view: EditorView): boolean => view.plugin(binding)?.step("redo") ?? false
    return [
        // A text is lines by "\n" only; else "\r\n" would count for one in the editor.
        EditorState.lineSeparator.of("\n"),
        EditorView.clipboardInputFilter.of((text) => text.replace(/\r\n?/g, "\n")),
        EditorState.changeFilter.of(isThere),
        EditorView.editorAttributes.of(() => (isThere() ? null : { class: "cm-noText" })),
        EditorView.contentAttributes.of(() => (isThere() ? null : { "aria-readonly": "true" })),
        binding,
        Prec.high(
            keymap.of([
                { key: "Mod-z", run: undo, preventDefault: true },
                { key: "Mod-y", mac: "Mod-Shift-z", run: redo, preventDefault: true },
                { linux: "Ctrl-Shift-z", run: redo, preventDefault: true },
            ]),
        ),
        // Menus, and gestures of phones.
        EditorView.domEventHandlers({
            beforeinput: (event, view) => {
                if (event.inputType === "historyUndo") return undo(view) && prevent(event)
                if (event.inputType === "historyRedo") return redo(view) && prevent(event)
                return false
            },
        }),
        options.presence ? peersShown : [],
    ]
}

/** Marks what came from the document. */
const fromDocument = Annotation.define<true>()

/** CodeMirror reads the page once more after a composition. */
const AFTER_COMPOSITION_MS = 60

class Binding<T> implements PluginValue {
    readonly #ending: (() => void)[] = []
    readonly #timers = new Timers()
    readonly #sharing: SelectionSharing<T> | undefined
    #destroyed = false
    /** The texts are known to be the same, but for what is held. */
    #agreed = false
    /** The text that is shown, or was at last. */
    #shown: Node | undefined
    #isThere: boolean
    #writing = false
    #steps = 0
    /** What others did that the editor does not show yet. */
    #held: ChangeSet | undefined
    #composedAt = 0

    constructor(
        readonly view: EditorView,
        readonly handle: DocHandle<T>,
        readonly place: Place,
        readonly options: TextOptions,
    ) {
        this.#isThere = this.#look()
        this.#ending.push(handle.on("change", (event) => this.#receive(event)))
        this.#ending.push(handle.on("close", () => this.#agree()))
        this.#ending.push(keepFocus(view.contentDOM, () => view.focus()))
        const ended = (): void => this.#timers.later("composed", AFTER_COMPOSITION_MS, () => this.#release())
        view.contentDOM.addEventListener("compositionend", ended)
        this.#ending.push(() => view.contentDOM.removeEventListener("compositionend", ended))
        const { presence, user } = options
        if (presence) this.#sharing = new SelectionSharing(view, handle, place, presence, user, this)
        // A plugin cannot change the editor while it is being made.
        queueMicrotask(() => this.#agree())
    }

    update(update: ViewUpdate): void {
        for (const transaction of update.transactions) {
            if (!transaction.docChanged || transaction.annotation(fromDocument)) continue
            this.#write(transaction.changes)
        }
        this.#sharing?.update(update)
    }

    destroy(): void {
        this.#destroyed = true
        for (const end of this.#ending.splice(0)) end()
        this.#timers.stop()
        this.#sharing?.destroy()
    }

    /** Undoes or redoes in the document, and shows where. */
    step(direction: "undo" | "redo"): boolean {
        if (this.view.state.readOnly) return false
        // Whatever becomes of it is an event or nothing.
        const done = (): void => void this.#steps--
        this.#steps++
        this.handle[direction]({ in: this.place }).then(done, done)
        return true
    }

    /** Where a place in the editor is in the document, if their texts are known to be the same. */
    get shown(): ((at: number) => number) | undefined {
        return this.#agreed ? (at) => this.#held?.mapPos(at) ?? at : undefined
    }

    /** What the editor is to show: of a text that is gone, what it shows. */
    #text(): string {
        return this.place.text ?? (this.#shown?.kind === "text" ? this.#shown.text : "")
    }

    /** Brings an edit of the user into the document. */
    #write(changes: ChangeSet): void {
        const { path } = this.place
        if (!this.#agreed || !path || this.handle.isClosed) return this.#agreeSoon()
        if (this.#held) {
            const held = this.#held
            this.#held = held.map(changes, true)
            changes = changes.map(held)
        }
        if (this.view.composing) this.#composedAt = Date.now()
        const text = this.#text()
        const edits: [from: number, to: number, insert: string][] = []
        changes.iterChanges((from, to, _fromB, _toB, inserted) => {
            edits.push(wholeCharacters(text, from, to, inserted.sliceString(0, undefined, "\n")))
        })
        this.#writing = true
        try {
            this.handle.change((draft) => {
                // From the end, so that none moves those that follow.
                for (const [from, to, insert] of edits.reverse()) {
                    splice(draft as unknown as object, path, from, to - from, insert)
                }
            })
        } catch (error) {
            // Not thrown: CodeMirror would go on without this plugin.
            logException(this.view.state, error, "reconverge")
        } finally {
            this.#writing = false
        }
        // It differs if the document took something else, or nothing.
        if (!this.#held && !equals(this.view.state.doc, this.#text())) this.#agreeSoon()
    }

    #receive(event: ChangeEvent<T>): void {
        // What this editor wrote; it is compared when that is done.
        if (this.#writing || !this.#agreed) return
        if (this.place.node() !== this.#shown) return this.#agree()
        const text = this.#text()
        const shown = this.view.state.doc
        const changes = this.#changesOf(event.patches)
        if (changes?.empty && !this.#held && equals(shown, text)) return
        if (changes && this.#mustWait(changes)) {
            this.#hold(this.#held ? this.#held.compose(changes) : changes)
            return
        }
        const all = this.#held && changes ? this.#held.compose(changes) : changes
        this.#held = undefined
        if (all && equals(all.apply(shown), text)) this.#show(all, event.source)
        else this.#agree()
    }

    /** What patches do to the text; undefined if they are too many to follow. */
    #changesOf(patches: readonly Patch[]): ChangeSet | undefined {
        const edits = patches.length > PATCHES_MAX || !this.#shown ? undefined : editsOf(this.#shown, patches)
        if (!edits) return undefined
        let changes = ChangeSet.empty(this.#held?.newLength ?? this.view.state.doc.length)
        for (const { at, deleted, inserted } of edits) {
            if (at + deleted > changes.newLength) return undefined
            const spec = { from: at, to: at + deleted, insert: inserted }
            changes = changes.compose(ChangeSet.of(spec, changes.newLength, "\n"))
        }
        return changes
    }

    #mustWait(changes: ChangeSet): boolean {
        const { view } = this
        if (!view.composing || Date.now() - this.#composedAt > HOLD_MS) return false
        if (this.#held) return true
        const { from, to } = view.state.doc.lineAt(view.state.selection.main.head)
        return changes.touchesRange(from, to) !== false
    }

    #hold(changes: ChangeSet): void {
        this.#held = changes
        this.#timers.later("release", HOLD_MS, () => this.#release())
    }

    #release(): void {
        if (!this.#held) return
        const left = this.#composedAt + HOLD_MS - Date.now()
        if (this.view.composing && left > 0) return this.#timers.later("release", left, () => this.#release())
        const held = this.#held
        this.#held = undefined
        if (equals(held.apply(this.view.state.doc), this.#text())) this.#show(held, "remote")
        else this.#agree()
    }

    #show(changes: ChangeSet, source: "local" | "remote"): void {
        let selection: EditorSelection | undefined
        if (this.#steps > 0) {
            changes.iterChanges((_fromA, _toA, _fromB, toB) => {
                selection = EditorSelection.single(toB)
            })
        }
        this.#dispatch({
            changes,
            ...(selection && { selection, scrollIntoView: true }),
            annotations: [
                fromDocument.of(true),
                Transaction.addToHistory.of(false),
                Transaction.remote.of(source === "remote"),
            ],
            // What others wrote is in the document, whatever filters say.
            filter: false,
        })
    }

    /** Replaces what differs from the document's text. */
    #agree(): void {
        if (this.#destroyed) return
        const shown = this.view.state.doc
        this.#held = undefined
        this.#agreed = true
        const node = this.place.node()
        if (node?.kind === "text") this.#shown = node
        if (this.#isThere !== this.#look()) this.#turn()
        const text = this.#text()
        if (equals(shown, text)) return
        this.#show(ChangeSet.of(difference(shown.toString(), text), shown.length, "\n"), "remote")
    }

    /** Whether there is a text turned; the editor asks for its attributes when it is updated. */
    #turn(): void {
        this.#isThere = this.#look()
        queueMicrotask(() => this.#destroyed || this.view.dispatch({}))
        if (!this.#isThere) this.options.onGone?.()
    }

    #look(): boolean {
        return !this.handle.isClosed && this.place.text !== undefined
    }

    #agreeSoon(): void {
        this.#agreed = false
        queueMicrotask(() => this.#agree())
    }

    #dispatch(spec: TransactionSpec): void {
        try {
            this.view.dispatch(spec)
        } catch (error) {
            // The editor takes no transaction while it is in one: somebody changed the document then.
            const { doc } = this.view.state
            this.#agreed = false
            queueMicrotask(() => {
                this.#agree()
                if (this.view.state.doc === doc && !equals(doc, this.#text())) throw error
            })
        }
    }
}

/** Whether an editor shows `text`, without making a string of all that it shows. */
function equals(shown: Text, text: string): boolean {
    if (shown.length !== text.length) return false
    let at = 0
    for (const piece of shown.iter()) {
        if (!text.startsWith(piece, at)) return false
        at += piece.length
    }
    return true
}

function prevent(event: Event): true {
    event.preventDefault()
    return true
}
