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
    StateEffect,
    StateField,
    Text,
    Transaction,
    type ChangeDesc,
    type Extension,
    type TransactionSpec,
} from "@codemirror/state"
import {
    EditorView,
    RectangleMarker,
    ViewPlugin,
    keymap,
    layer,
    logException,
    type LayerMarker,
    type PluginValue,
    type ViewUpdate,
} from "@codemirror/view"

import { splice } from "./draft.js"
import type { DocHandle } from "./handle.js"
import { Place } from "./place.js"
import { HOLD_MS, PATCHES_MAX, difference, keepFocus, samePath, wholeCharacters } from "./text.js"
import { type Node, editsOf } from "./tree.js"
import type { ChangeEvent, Cursor, Patch, Path, TextPath } from "./types.js"

/** How others see the user of this editor. */
export interface TextUser {
    /** Shown beside the caret. */
    readonly name: string
    /** A colour of CSS: `#rgb`, `#rrggbb`, a name, or `rgb()`, `hsl()`, `oklch()`. */
    readonly color: string
}

/** What somebody has selected; without an extent it is a caret. */
export interface TextSelection {
    /** Where the text was that it is in, when this was told; */
    readonly path: Path
    /** and its name in the document, once that is stored: the text is the same one wherever it is. */
    readonly text?: string
    /** Where it began, */
    readonly anchor: Cursor
    /** and where it ends: the side that moves, and shows the caret. */
    readonly head: Cursor
}

/** What editors tell each other. A presence may hold more than this. */
export interface TextPresenceState {
    /** Who it is; without, nothing is shown. */
    user?: TextUser | null
    /** None while the editor has no focus. */
    selection?: TextSelection | null
}

/** Somebody else who has the document open. */
export interface TextPeer {
    /** What they tell. */
    readonly state: TextPresenceState
}

/** A `Presence` whose state has room for {@link TextPresenceState}. */
export interface TextPresence {
    /** One's own state. */
    readonly local: TextPresenceState
    /** The others; another map whenever something in it changed. */
    readonly peers: ReadonlyMap<string, TextPeer>
    /** Changes some of one's own state. */
    set(changes: TextPresenceState): void
    /** Calls `listener` when there is another map of peers; returns what ends that. */
    on(event: "change", listener: () => void): () => void
}

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
        options.presence ? [peers, peerSelections, peerCarets, peersTheme] : [],
    ]
}

/** Marks what came from the document. */
const fromDocument = Annotation.define<true>()

/** CodeMirror reads the page once more after a composition. */
const AFTER_COMPOSITION_MS = 60

/** Others learn of a new selection after this long. */
const TELL_MS = 60

/** After an edit, the places of others are asked for again so much later. */
const LOCATE_MS = 500

class Binding<T> implements PluginValue {
    readonly #ending: (() => void)[] = []
    readonly #timers = new Map<string, ReturnType<typeof setTimeout>>()
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

    #telling = false
    #tellAgain = false
    #locating = false
    #locateAgain = false
    #since: ChangeDesc | undefined

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
        const ended = (): void => this.#later("composed", AFTER_COMPOSITION_MS, () => this.#release())
        view.contentDOM.addEventListener("compositionend", ended)
        this.#ending.push(() => view.contentDOM.removeEventListener("compositionend", ended))
        const { presence, user } = options
        if (presence) {
            if (user) presence.set({ user })
            this.#ending.push(presence.on("change", () => void this.#locate()))
            this.#later("locate", 0, () => void this.#locate())
        }
        // A plugin cannot change the editor while it is being made.
        queueMicrotask(() => this.#agree())
    }

    update(update: ViewUpdate): void {
        for (const transaction of update.transactions) {
            if (!transaction.docChanged || transaction.annotation(fromDocument)) continue
            this.#write(transaction.changes)
        }
        if (this.options.presence) {
            if (update.docChanged) {
                if (this.#since) this.#since = this.#since.composeDesc(update.changes)
                this.#later("locate", LOCATE_MS, () => void this.#locate())
            }
            if (update.docChanged || update.selectionSet || update.focusChanged) {
                this.#later("tell", TELL_MS, () => void this.#tell())
            }
        }
    }

    destroy(): void {
        this.#destroyed = true
        for (const end of this.#ending.splice(0)) end()
        for (const timer of this.#timers.values()) clearTimeout(timer)
        this.#setSelection(null)
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

    /** Runs `task` so much later at the latest, unless the editor is gone by then. */
    #later(name: string, ms: number, task: () => void): void {
        if (this.#timers.has(name)) return
        const run = (): void => {
            this.#timers.delete(name)
            task()
        }
        this.#timers.set(name, setTimeout(run, ms))
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
        this.#later("release", HOLD_MS, () => this.#release())
    }

    #release(): void {
        if (!this.#held) return
        const left = this.#composedAt + HOLD_MS - Date.now()
        if (this.view.composing && left > 0) return this.#later("release", left, () => this.#release())
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

    /** Tells the others what is selected here. */
    async #tell(): Promise<void> {
        const { presence } = this.options
        if (!presence || this.#destroyed) return
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
        const { presence } = this.options
        const told = presence?.local.selection
        // Another editor of this page may have the selection by now.
        if (selection === null && !(isSelection(told) && this.#isHere(told))) return
        presence?.set({ selection })
    }

    async #selection(): Promise<TextSelection | null> {
        const { view, handle } = this
        const { path, name } = this.place
        if (!view.hasFocus || !this.#agreed || !path) return null
        const place = (at: number): number => this.#held?.mapPos(at) ?? at
        const { main } = view.state.selection
        const head = handle.cursor(this.place, place(main.head))
        const anchor = main.empty ? head : handle.cursor(this.place, place(main.anchor))
        const selection = { path, anchor: await anchor, head: await head }
        return name === undefined ? selection : { ...selection, text: name }
    }

    /** Whether somebody's selection is in the text of this editor. */
    #isHere({ text, path }: TextSelection): boolean {
        const { name, path: own } = this.place
        if (text !== undefined && name !== undefined) return text === name
        return own !== undefined && samePath(path, own)
    }

    /** Finds where the others are now. */
    async #locate(): Promise<void> {
        const { presence } = this.options
        if (!presence || this.#destroyed) return
        if (this.#locating) {
            this.#locateAgain = true
            return
        }
        this.#locating = true
        try {
            do {
                this.#locateAgain = false
                this.#since = ChangeSet.empty(this.view.state.doc.length).desc
                const asked = [...presence.peers].map(([id, { state }]) => this.#place(id, state))
                const found = (await Promise.all(asked)).filter((peer) => peer !== undefined)
                if (this.#destroyed) return
                const { since, view } = { since: this.#since, view: this.view }
                const moved = found.map((peer) => movePeer(peer, since))
                const before = view.state.field(peers, false) ?? []
                if (before.length + moved.length > 0) view.dispatch({ effects: setPeers.of(moved) })
            } while (this.#locateAgain)
        } finally {
            this.#since = undefined
            this.#locating = false
        }
    }

    async #place(id: string, state: TextPresenceState): Promise<Peer | undefined> {
        const { place, handle } = this
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

interface Peer {
    readonly id: string
    readonly name: string
    readonly color: string
    readonly anchor: number
    readonly head: number
    /** The cursor, as its owner told it. */
    readonly at: Cursor
}

/** A cursor stays before the character that it names, so text inserted there pushes it on. */
function movePeer(peer: Peer, changes: ChangeDesc): Peer {
    const move = (at: number): number => changes.mapPos(Math.min(at, changes.length), 1)
    return { ...peer, anchor: move(peer.anchor), head: move(peer.head) }
}

const setPeers = StateEffect.define<readonly Peer[]>()

const peers = StateField.define<readonly Peer[]>({
    create: () => [],
    update(list, transaction) {
        for (const effect of transaction.effects) if (effect.is(setPeers)) return effect.value
        if (!transaction.docChanged || list.length === 0) return list
        return list.map((peer) => movePeer(peer, transaction.changes))
    },
})

// Layers and not widgets in the text: those would allow a line to break within a word, and end a
// composition beside them.
const peerSelections = layer({
    above: false,
    class: "cm-peerSelections",
    update: peersChanged,
    markers: (view) =>
        view.state.field(peers).flatMap(({ anchor, head, color }) => {
            if (anchor === head) return []
            const range = EditorSelection.range(anchor, head)
            const rectangles = RectangleMarker.forRange(view, "cm-peerSelection", range)
            return rectangles.map((rectangle) => new SelectionMarker(rectangle, color))
        }),
})

const peerCarets = layer({
    above: true,
    class: "cm-peerCarets",
    update: peersChanged,
    markers: (view) =>
        view.state.field(peers).flatMap((peer) => {
            const caret = EditorSelection.cursor(peer.head, peer.head < peer.anchor ? 1 : -1)
            const [rectangle] = RectangleMarker.forRange(view, "", caret)
            if (!rectangle) return []
            const under = view.scrollDOM.clientHeight - rectangle.top - (rectangle.height ?? 0)
            const side = rectangle.top >= NAME_HEIGHT ? "above" : under >= NAME_HEIGHT ? "below" : "beside"
            const leftward = rectangle.left > view.scrollDOM.clientWidth * 0.7
            return [new CaretMarker(rectangle, peer, side, leftward)]
        }),
})

/** A name needs so many pixels above or below its caret; in an editor of one line, there are none. */
const NAME_HEIGHT = 20

function peersChanged(update: ViewUpdate): boolean {
    return update.startState.field(peers) !== update.state.field(peers)
}

function put(dom: HTMLElement, { left, top, width, height }: RectangleMarker): void {
    dom.style.left = `${left}px`
    dom.style.top = `${top}px`
    if (width !== null) dom.style.width = `${width}px`
    dom.style.height = `${height}px`
}

class SelectionMarker implements LayerMarker {
    constructor(
        readonly rectangle: RectangleMarker,
        readonly color: string,
    ) {}

    eq(other: SelectionMarker): boolean {
        return other.color === this.color && other.rectangle.eq(this.rectangle)
    }

    draw(): HTMLElement {
        const dom = document.createElement("div")
        dom.className = "cm-peerSelection"
        dom.style.setProperty("--peer", this.color)
        put(dom, this.rectangle)
        return dom
    }
}

class CaretMarker implements LayerMarker {
    constructor(
        readonly rectangle: RectangleMarker,
        readonly peer: Peer,
        readonly side: "above" | "below" | "beside",
        readonly leftward: boolean,
    ) {}

    eq(other: CaretMarker): boolean {
        return this.#looksLike(other) && other.peer.at === this.peer.at && other.rectangle.eq(this.rectangle)
    }

    draw(): HTMLElement {
        const dom = document.createElement("div")
        dom.className = "cm-peerCaret"
        dom.classList.add(`cm-peerCaret-${this.side}`)
        dom.classList.toggle("cm-peerCaret-leftward", this.leftward)
        dom.style.setProperty("--peer", this.peer.color)
        dom.style.setProperty("--peer-text", textColorOn(this.peer.color))
        const name = document.createElement("span")
        name.className = "cm-peerName"
        name.textContent = this.peer.name
        dom.append(name)
        put(dom, this.rectangle)
        return dom
    }

    /** Moves the caret, and shows the name again if it was its owner who moved it. */
    update(dom: HTMLElement, before: CaretMarker): boolean {
        if (!this.#looksLike(before)) return false
        put(dom, this.rectangle)
        const name = dom.firstElementChild
        if (before.peer.at !== this.peer.at) name?.replaceWith(name.cloneNode(true))
        return true
    }

    #looksLike({ peer, side, leftward }: CaretMarker): boolean {
        const { id, name, color } = this.peer
        const same = peer.id === id && peer.name === name && peer.color === color
        return same && side === this.side && leftward === this.leftward
    }
}

const peersTheme = EditorView.baseTheme({
    ".cm-peerSelection": {
        backgroundColor: "color-mix(in srgb, var(--peer) 30%, transparent)",
    },
    ".cm-peerCarets": { pointerEvents: "none" },
    ".cm-peerCaret": {
        width: "2px",
        marginLeft: "-1px",
        backgroundColor: "var(--peer)",
        pointerEvents: "auto",
    },
    ".cm-peerName": {
        position: "absolute",
        left: "0",
        bottom: "100%",
        padding: "0 5px",
        borderRadius: "4px 4px 4px 0",
        backgroundColor: "var(--peer)",
        color: "var(--peer-text)",
        font: "600 11px/1.6 system-ui, sans-serif",
        whiteSpace: "nowrap",
        pointerEvents: "none",
        opacity: "0",
        animation: "cm-peerName 3s",
    },
    ".cm-peerCaret-leftward .cm-peerName": {
        left: "auto",
        right: "0",
        borderRadius: "4px 4px 0 4px",
    },
    ".cm-peerCaret-below .cm-peerName": {
        bottom: "auto",
        top: "100%",
        borderRadius: "0 4px 4px 4px",
    },
    ".cm-peerCaret-below.cm-peerCaret-leftward .cm-peerName": {
        borderRadius: "4px 0 4px 4px",
    },
    ".cm-peerCaret-beside .cm-peerName": {
        bottom: "auto",
        top: "0",
        left: "100%",
        borderRadius: "0 4px 4px 0",
    },
    ".cm-peerCaret-beside.cm-peerCaret-leftward .cm-peerName": {
        left: "auto",
        right: "100%",
        borderRadius: "4px 0 0 4px",
    },
    ".cm-peerCaret:hover .cm-peerName": { opacity: "1" },
    "@keyframes cm-peerName": { "0%, 85%": { opacity: "1" }, "100%": { opacity: "0" } },
})

function isSelection(value: unknown): value is TextSelection {
    if (typeof value !== "object" || value === null) return false
    const { path, anchor, head } = value as Partial<Record<keyof TextSelection, unknown>>
    return Array.isArray(path) && typeof anchor === "string" && typeof head === "string"
}

function nameOf(user: TextUser | null | undefined): string {
    const name = typeof user?.name === "string" ? user.name.trim().slice(0, 40) : ""
    return name || "Somebody"
}

const COLOR = /^(#[0-9a-f]{3,8}|[a-z]{3,30}|(rgb|hsl|oklch)a?\([\d\s.,%/a-z]{1,60}\))$/i

function colorOf(user: TextUser | null | undefined): string {
    return typeof user?.color === "string" && COLOR.test(user.color) ? user.color : "#888888"
}

/** Black or white, whichever reads better on a hexadecimal colour; white on all others. */
function textColorOn(color: string): string {
    const digits = /^#([0-9a-f]{3}|[0-9a-f]{6})$/i.exec(color)?.[1]
    if (digits === undefined) return "#ffffff"
    const wide = digits.length === 3 ? digits.replace(/./g, "$&$&") : digits
    const [red, green, blue] = [0, 2, 4].map((at) => {
        const part = parseInt(wide.slice(at, at + 2), 16) / 255
        return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
    }) as [number, number, number]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.36 ? "#000000" : "#ffffff"
}
