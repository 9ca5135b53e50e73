/**
 * A text of a document in an `<input>` or a `<textarea>`, edited by many.
 *
 * What the user types becomes an edit of the document at the place where it was typed, and what
 * others type comes in around the caret, the selection and what is being composed.
 *
 * @module reconverge/input
 */

import { splice } from "./draft.js"
import type { DocHandle } from "./handle.js"
import { Place } from "./place.js"
import { HOLD_MS, PATCHES_MAX, difference, hasFocus, keepFocus, samePath, wholeCharacters } from "./text.js"
import { type Node, type TextEdit, editsOf } from "./tree.js"
import type { ChangeEvent, Path, TextPath } from "./types.js"

/** What can show a text. */
export type TextElement = HTMLInputElement | HTMLTextAreaElement

/** A handle of a document of whatever type. */
export type AnyHandle = Pick<DocHandle<unknown>, "documentId" | "place" | "undo" | "redo">

/** What more can be told to the binding of an input. */
export interface TextInputOptions {
    /** Called when the text is not there any more: it, or what it was in, was deleted. */
    readonly onGone?: () => void
}

/**
 * Binds an `<input>` or `<textarea>` to the text at `path`, or at a place. Returns what ends that.
 *
 * The element shows the text, wherever in a list it is by then, and is read-only while there is none;
 * of a text that was deleted it shows what it was. Do not set its value otherwise: leave out `value`
 * in React, `v-model` and `bind:value`. The keys for undo and redo are the document's, for what one wrote in this text.
 *
 * @throws TypeError for an input that has no caret, as those of type `number` and `email`; if what is at
 * `path` is no text, but a fixed string, a counter or the like.
 */
export function bindText<T, const P extends Path>(
    element: TextElement,
    handle: DocHandle<T>,
    path: (P & TextPath<T, P>) | Place,
    options: TextInputOptions = {},
): () => void {
    const place = placeOf(handle, path)
    if (place.whyNoText) throw new TypeError(place.whyNoText)
    const binding = new Binding(element, handle as DocHandle<unknown>, place, options)
    return () => binding.end()
}

/** @internal What frameworks keep of an element, whose text may become another one. */
export class TextBinding {
    readonly #element: TextElement
    readonly #lock: (isLocked: boolean) => void
    #handle: DocHandle<unknown> | undefined
    #path: Path | Place | undefined
    #binding: Binding | undefined

    constructor(element: TextElement) {
        this.#element = element
        this.#lock = lockOf(element)
    }

    /** Goes on, if it is the text that is shown, or the place of one that was deleted. */
    bind(handle: AnyHandle | undefined, path: Path | Place, options: TextInputOptions = {}): void {
        const place = handle && placeOf(handle, path)
        const node = place?.node()
        const binding = handle === this.#handle ? this.#binding : undefined
        if (binding && (node ? node === binding.place.node() : isSamePath(path, this.#path))) {
            binding.options = options
            return
        }
        this.end()
        this.#handle = handle as DocHandle<unknown> | undefined
        this.#path = path
        // What is typed before there is a document would be lost.
        this.#lock(!place)
        // To throw would take down all that is rendered with it, for what somebody else may have stored.
        if (place?.whyNoText) console.warn(`nobody can write in this input: ${place.whyNoText}`, this.#element)
        if (place) this.#binding = new Binding(this.#element, this.#handle!, place, options)
    }

    end(): void {
        this.#binding?.end()
        this.#binding = undefined
        this.#lock(false)
    }
}

function placeOf(handle: AnyHandle, path: Path | Place): Place {
    return path instanceof Place ? path : handle.place(path)
}

function isSamePath(one: Path | Place, other: Path | Place | undefined): boolean {
    if (one instanceof Place || other instanceof Place || !other) return one === other
    return samePath(one, other)
}

/** Makes an element read-only, and then what it was before. */
function lockOf(element: TextElement): (isLocked: boolean) => void {
    let before: boolean | undefined
    return (isLocked) => {
        if (isLocked === (before !== undefined)) return
        const was = before
        before = isLocked ? element.readOnly : undefined
        element.readOnly = was ?? true
    }
}

class Binding {
    options: TextInputOptions
    readonly place: Place
    readonly #element: TextElement
    readonly #handle: DocHandle<unknown>
    readonly #lock: (isLocked: boolean) => void
    readonly #ending: (() => void)[] = []
    /** The text that is shown, or was at last. */
    #node: Node | undefined
    #isThere: boolean | undefined
    /** What the element held when this looked last, */
    #shown = ""
    /** the text that it shows, */
    #text = ""
    /** and where in that each of its code units is, -1 if nowhere; undefined while they are the same. */
    #map: number[] | undefined
    #isComposing = false
    #keptAt = 0
    /** Runs while others' edits are kept back. */
    #keeping: ReturnType<typeof setTimeout> | undefined
    #isWriting = false
    #steps = 0

    constructor(element: TextElement, handle: DocHandle<unknown>, place: Place, options: TextInputOptions) {
        if (typeof element?.setRangeText !== "function") {
            throw new TypeError("a text can be shown in an <input> or a <textarea> only")
        }
        if (element.selectionStart === null) {
            throw new TypeError(`an input of type ${element.type} has no caret: make it one of type text`)
        }
        this.#element = element
        this.#handle = handle
        this.#lock = lockOf(element)
        this.place = place
        this.options = options
        this.#ending.push(handle.on("change", (event) => this.#receive(event)))
        this.#ending.push(handle.on("close", () => this.#agree()))
        this.#ending.push(keepFocus(element, () => element.focus({ preventScroll: true })))
        this.#listen(element, "input", () => this.#write())
        this.#listen(element, "beforeinput", (event) => this.#before(event as InputEvent))
        this.#listen(element, "keydown", (event) => this.#key(event as KeyboardEvent))
        this.#listen(element, "compositionstart", () => this.#compose())
        this.#listen(element, "compositionend", () => {
            this.#isComposing = false
            // The last input may be told after it.
            this.#keep(0)
        })
        // Of its form, whichever that is by then. It is empty a moment later.
        this.#listen(element.ownerDocument, "reset", ({ target }) => {
            if (target === element.form) this.#keep(0)
        })
        this.#shown = this.#text = element.value
        this.#agree()
    }

    end(): void {
        for (const end of this.#ending.splice(0)) end()
        clearTimeout(this.#keeping)
        this.#lock(false)
    }

    #listen(target: EventTarget, event: string, listener: (event: Event) => void): void {
        target.addEventListener(event, listener)
        this.#ending.push(() => target.removeEventListener(event, listener))
    }

    /** Others' edits would end a composition: they are shown after it, or when it rests for long. */
    #compose(): void {
        this.#isComposing = true
        this.#map ??= unitsOf(this.#shown)
        this.#keptAt = Date.now()
        this.#keep(HOLD_MS)
    }

    #keep(ms: number): void {
        clearTimeout(this.#keeping)
        this.#keeping = setTimeout(() => {
            const left = this.#keptAt + HOLD_MS - Date.now()
            if (this.#isComposing && left > 0) this.#keep(left)
            else this.#agree()
        }, ms)
    }

    /** Brings what the user did into the document. */
    #write(): void {
        const before = this.#shown
        const now = (this.#shown = this.#element.value)
        const grown = Math.max(0, now.length - before.length)
        const { from, to, insert } = difference(before, now, (this.#element.selectionEnd ?? Infinity) - grown)
        const { path, text } = this.place
        if (this.#handle.isClosed || path === undefined || text === undefined) return this.#agree()
        // Nobody told yet of what was done in this moment.
        if (text !== this.#text) this.#follow(text)
        this.#keptAt = Date.now()
        const edits = this.#map ? this.#mapped(from, to, insert) : [wholeCharacters(text, from, to, insert)]
        this.#isWriting = true
        try {
            this.#handle.change((draft) => {
                for (const [from, to, insert] of edits) splice(draft as object, path, from, to - from, insert)
            })
            this.#text = edited(
                text,
                edits.map(([at, to, inserted]) => ({ at, deleted: to - at, inserted })),
            )
        } finally {
            this.#isWriting = false
            // It differs if the document took something else, or nothing.
            if (!this.#keeping && this.#shown !== this.place.text) this.#agree()
        }
    }

    /** The edits of the document that an edit of the element is, the last one first. */
    #mapped(from: number, to: number, insert: string): [from: number, to: number, insert: string][] {
        const map = this.#map!
        const text = this.#text
        const at = this.#inText(from)
        const edits = [wholeCharacters(text, at, at, insert)]
        for (let unit = from; unit < to; unit++) {
            if (map[unit]! < 0) continue
            const end = endOf(text, map[unit]!)
            // What lies together is deleted together: else each unit would move all others.
            if (edits.length > 1 && edits[0]![1] === map[unit]) edits[0]![1] = end
            else edits.unshift([map[unit]!, end, ""])
        }
        let rest = [...map.slice(0, from), ...map.slice(to)]
        for (const [from, to, insert] of edits) {
            rest = movedAll(rest, { at: from, deleted: to - from, inserted: insert })
        }
        rest.splice(from, 0, ...Array.from({ length: insert.length }, (_, unit) => at + unit))
        this.#map = rest
        return edits
    }

    #receive({ patches, source }: ChangeEvent<unknown>): void {
        // It is compared when that is done.
        if (this.#isWriting) return
        const node = this.place.node()
        if (node?.kind !== "text") return this.#agree()
        const { text } = node
        if (node === this.#node && text === this.#text) return
        const told = node === this.#node ? editsOf(node, patches) : undefined
        // Several events may be told of at once, of which the first ones were overtaken.
        const edits = told && edited(this.#text, told) === text ? told : undefined
        if (this.#keeping && this.#map) {
            this.#node = node
            this.#follow(text, edits && edits.length <= PATCHES_MAX ? edits : undefined)
        } else {
            this.#agree(edits, this.#steps > 0 && source === "local")
        }
    }

    /** Keeps in mind what was done to the text, of which the element shows nothing yet. */
    #follow(text: string, edits: readonly TextEdit[] = [edit(this.#text, text)]): void {
        this.#map ??= unitsOf(this.#shown)
        for (const edit of edits) this.#map = movedAll(this.#map, edit)
        this.#text = text
    }

    /**
     * Shows what there is, which edits made of what there was. What is selected is what was before, without
     * what came in its place: nobody means to replace that by what they type.
     */
    #agree(edits?: readonly TextEdit[], isStep = false): void {
        const element = this.#element
        clearTimeout(this.#keeping)
        this.#keeping = undefined
        const node = this.place.node()
        const isText = node?.kind === "text"
        if (isText) this.#node = node
        const wasThere = this.#isThere
        this.#isThere = isText && !this.#handle.isClosed
        this.#lock(!this.#isThere)

        const text = this.#node?.kind === "text" ? this.#node.text : ""
        const shown = shownOf(element, text)
        const before = element.value
        const { from, to, insert } = difference(before, shown)
        let start = this.#inText(element.selectionStart ?? 0)
        let end = this.#inText(element.selectionEnd ?? 0)
        const direction = element.selectionDirection ?? "none"
        for (const done of edits ?? [edit(this.#text, text)]) {
            ;[start, end] = movedSelection(start, end, done)
            if (isStep) start = end = done.at + done.inserted.length
        }
        // Of what was there before, nothing is left.
        if (wasThere === undefined) start = end
        if (from < to || insert) element.setRangeText(insert, from, to, "preserve")
        this.#shown = element.value
        this.#text = text
        // Lines end by "\n" in it, and an input has but one.
        this.#map = this.#shown === text ? undefined : aligned(this.#shown, text)
        if (before !== this.#shown) this.#select(this.#inElement(start), this.#inElement(end), direction)
        if (wasThere && !this.#isThere) this.options.onGone?.()
    }

    /** Where an index of the element is in the text: after the unit before it, if that is still there. */
    #inText(index: number): number {
        const map = this.#map
        if (!map) return Math.min(index, this.#text.length)
        const last = map.slice(0, index).findLast((unit) => unit >= 0)
        return last === undefined ? (map.find((unit) => unit >= 0) ?? 0) : endOf(this.#text, last)
    }

    #inElement(index: number): number {
        if (!this.#map) return index
        const after = this.#map.findIndex((unit) => unit >= index)
        return after < 0 ? this.#map.length : after
    }

    #select(start: number, end: number, direction: "forward" | "backward" | "none"): void {
        const element = this.#element
        const { selectionStart, selectionEnd, selectionDirection } = element
        if (selectionStart === start && selectionEnd === end && selectionDirection === direction) return
        // Without the focus, it would take that in some browsers.
        if (hasFocus(element)) element.setSelectionRange(start, end, direction)
        else element.setRangeText("", end, end, "end")
    }

    #before(event: InputEvent): void {
        // Somebody else may have set its value, and all of the text would seem to be replaced by that.
        if (!this.#isComposing && this.#element.value !== this.#shown) this.#agree()
        if (event.inputType === "historyUndo") this.#step(event, "undo")
        else if (event.inputType === "historyRedo") this.#step(event, "redo")
    }

    #key(event: KeyboardEvent): void {
        if (event.isComposing || event.altKey || event.ctrlKey === event.metaKey) return
        // On layouts of other letters, it is the key that counts.
        const key = (event.key > "\x7f" ? event.code.slice(3) : event.key).toLowerCase()
        if (key === "z") this.#step(event, event.shiftKey ? "redo" : "undo")
        else if (key === "y" && event.ctrlKey) this.#step(event, "redo")
    }

    #step(event: Event, direction: "undo" | "redo"): void {
        if (event.defaultPrevented) return
        event.preventDefault()
        // Whatever becomes of it is an event or nothing.
        const done = (): void => void this.#steps--
        this.#steps++
        this.#handle[direction]({ in: this.place }).then(done, done)
    }
}

function edit(before: string, after: string): TextEdit {
    const { from, to, insert } = difference(before, after)
    return { at: from, deleted: to - from, inserted: insert }
}

function edited(text: string, edits: readonly TextEdit[]): string {
    for (const { at, deleted, inserted } of edits) text = text.slice(0, at) + inserted + text.slice(at + deleted)
    return text
}

/** Where an index is after an edit. */
function moved(index: number, { at, deleted, inserted }: TextEdit, isPushed: boolean): number {
    if (index < at || (index === at && !isPushed)) return index
    return index < at + deleted ? at : index + inserted.length - deleted
}

function movedSelection(start: number, end: number, edit: TextEdit): [start: number, end: number] {
    const { at, deleted, inserted } = edit
    if (start >= end) return [(start = moved(start, edit, false)), start]
    // What comes before it is not of it, nor what comes in its place.
    const cut = (index: number): number => moved(index, { at, deleted, inserted: "" }, false)
    ;[start, end] = [cut(start), cut(end)]
    const put = { at, deleted: 0, inserted }
    return [moved(start, put, start < end), moved(end, put, false)]
}

/** Where code units are after an edit. */
function movedAll(map: readonly number[], edit: TextEdit): number[] {
    const { at, deleted } = edit
    return map.map((index) => (index >= at && index < at + deleted ? -1 : moved(index, edit, true)))
}

function unitsOf(text: string): number[] {
    return Array.from({ length: text.length }, (_, index) => index)
}

/** What an element makes of a text. */
function shownOf(element: TextElement, text: string): string {
    if (element.type === "textarea") return text.replace(/\r\n?/g, "\n")
    const line = text.replace(/[\r\n]/g, "")
    return element.type === "url" ? line.replace(/^[\t\f ]+|[\t\f ]+$/g, "") : line
}

function endOf(text: string, unit: number): number {
    return unit + (text.startsWith("\r\n", unit) ? 2 : 1)
}

/** Where what an element shows of a text is in it. */
function aligned(shown: string, text: string): number[] {
    const map: number[] = []
    let at = 0
    for (let unit = 0; unit < shown.length; unit++) {
        const isLine = shown[unit] === "\n"
        while (at < text.length && text[at] !== shown[unit] && !(isLine && text[at] === "\r")) at++
        map.push(at)
        at = endOf(text, at)
    }
    return map
}
