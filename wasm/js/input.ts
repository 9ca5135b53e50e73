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
import { HOLD_MS, PATCHES_MAX, difference, wholeCharacters } from "./text.js"
import { type Node, type TextEdit, editsOf } from "./tree.js"
import type { ChangeEvent, Path, TextPath } from "./types.js"

/** What can show a text. */
export type TextElement = HTMLInputElement | HTMLTextAreaElement

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
 * @throws TypeError for an input that has no caret, as those of type `number` and `email`.
 */
export function bindText<T, const P extends Path>(
    element: TextElement,
    handle: DocHandle<T>,
    path: (P & TextPath<T, P>) | Place,
    options: TextInputOptions = {},
): () => void {
    const binding = new Binding(element, handle as DocHandle<unknown>, placeOf(handle, path), options)
    return () => binding.end()
}

/** @internal What frameworks keep of an element, whose text may become another one. */
export class TextBinding {
    readonly #element: TextElement
    #handle: DocHandle<unknown> | undefined
    #binding: Binding | undefined

    constructor(element: TextElement) {
        this.#element = element
    }

    /** Goes on, if it is the text that is shown. */
    bind<T>(handle: DocHandle<T> | undefined, path: Path | Place, options: TextInputOptions = {}): void {
        const place = handle && placeOf(handle, path)
        const node = place?.node()
        const same = handle === this.#handle && node !== undefined && node === this.#binding?.place.node()
        if (same && this.#binding) {
            this.#binding.options = options
            return
        }
        this.end()
        this.#handle = handle as DocHandle<unknown> | undefined
        if (place) this.#binding = new Binding(this.#element, this.#handle!, place, options)
    }

    end(): void {
        this.#binding?.end()
        this.#binding = undefined
    }
}

function placeOf<T>(handle: DocHandle<T>, path: Path | Place): Place {
    return path instanceof Place ? path : handle.place(path)
}

class Binding {
    options: TextInputOptions
    readonly place: Place
    readonly #element: TextElement
    readonly #handle: DocHandle<unknown>
    readonly #ending: (() => void)[] = []
    readonly #readOnly: boolean
    /** The text that is shown, or was at last. */
    #node: Node | undefined
    #isThere = true
    /** What the element held when this looked last. */
    #shown = ""
    /** Where each code unit of that is in the document, -1 if nowhere; undefined while they are the same. */
    #map: number[] | undefined
    #isComposing = false
    #keptAt = 0
    /** Runs while others' edits are kept back. */
    #keeping: ReturnType<typeof setTimeout> | undefined
    #isWriting = false
    #steps = 0

    constructor(element: TextElement, handle: DocHandle<unknown>, place: Place, options: TextInputOptions) {
        if (element.selectionStart === null) {
            throw new TypeError(`an input of type ${element.type} has no caret: make it one of type text`)
        }
        this.#element = element
        this.#handle = handle
        this.place = place
        this.options = options
        this.#readOnly = element.readOnly
        this.#ending.push(handle.on("change", (event) => this.#receive(event)))
        this.#listen(element, "input", () => this.#write())
        this.#listen(element, "beforeinput", (event) => this.#menu(event as InputEvent))
        this.#listen(element, "keydown", (event) => this.#key(event as KeyboardEvent))
        this.#listen(element, "compositionstart", () => this.#compose())
        this.#listen(element, "compositionend", () => {
            this.#isComposing = false
            // The last input may be told after it.
            this.#keep(0)
        })
        // It is empty a moment later.
        if (element.form) this.#listen(element.form, "reset", () => this.#keep(0))
        this.#agree()
    }

    end(): void {
        for (const end of this.#ending.splice(0)) end()
        clearTimeout(this.#keeping)
        this.#element.readOnly = this.#readOnly
    }

    #listen(target: EventTarget, event: string, listener: (event: Event) => void): void {
        target.addEventListener(event, listener)
        this.#ending.push(() => target.removeEventListener(event, listener))
    }

    /** Others' edits would end a composition: they are shown after it, or when it rests for long. */
    #compose(): void {
        this.#isComposing = true
        this.#map ??= Array.from({ length: this.#shown.length }, (_, index) => index)
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
        if (path === undefined || text === undefined) return this.#agree()
        this.#keptAt = Date.now()
        const edits = this.#map ? this.#mapped(text, from, to, insert) : [wholeCharacters(text, from, to, insert)]
        this.#isWriting = true
        try {
            this.#handle.change((draft) => {
                for (const [from, to, insert] of edits) splice(draft as object, path, from, to - from, insert)
            })
        } finally {
            this.#isWriting = false
            // It differs if the document took something else, or nothing.
            if (!this.#keeping && this.#shown !== this.place.text) this.#agree()
        }
    }

    /** The edits of the document that an edit of the element is, the last one first. */
    #mapped(text: string, from: number, to: number, insert: string): [from: number, to: number, insert: string][] {
        const map = this.#map!
        const end = (unit: number): number => map[unit]! + (text.startsWith("\r\n", map[unit]) ? 2 : 1)
        let before = from - 1
        while (before >= 0 && map[before]! < 0) before--
        const at = before < 0 ? 0 : end(before)
        const edits = [wholeCharacters(text, at, at, insert)]
        for (let unit = from; unit < to; unit++) {
            if (map[unit]! < 0) continue
            // What lies together is deleted together: else each unit would move all others.
            if (edits.length > 1 && edits[0]![1] === map[unit]) edits[0]![1] = end(unit)
            else edits.unshift([map[unit]!, end(unit), ""])
        }
        let rest = [...map.slice(0, from), ...map.slice(to)]
        for (const [from, to, insert] of edits) {
            rest = movedAll(rest, { at: from, deleted: to - from, inserted: insert })
        }
        rest.splice(from, 0, ...Array.from({ length: insert.length }, (_, unit) => at + unit))
        this.#map = rest
        return edits
    }

    #receive({ patches }: ChangeEvent<unknown>): void {
        // It is compared when that is done.
        if (this.#isWriting) return
        const node = this.place.node()
        const edits = node && node === this.#node && patches.length <= PATCHES_MAX ? editsOf(node, patches) : undefined
        if (!edits) return this.#agree()
        if (edits.length === 0) return
        if (this.#map) {
            for (const edit of edits) this.#map = movedAll(this.#map, edit)
            if (!this.#keeping) this.#agree()
        } else {
            this.#show(edits)
            if (this.#shown !== this.place.text) this.#agree()
        }
    }

    /** Does to the element what was done to the text. */
    #show(edits: readonly TextEdit[]): void {
        const element = this.#element
        let start = element.selectionStart ?? 0
        let end = element.selectionEnd ?? 0
        const direction = element.selectionDirection ?? "none"
        for (const edit of edits) {
            element.setRangeText(edit.inserted, edit.at, edit.at + edit.deleted, "preserve")
            // What comes before a selection is not of it.
            start = moved(start, edit, start < end)
            end = Math.max(start, moved(end, edit, false))
            if (this.#steps > 0) start = end = edit.at + edit.inserted.length
        }
        this.#shown = element.value
        this.#select(start, end, direction)
    }

    /** Shows what there is. */
    #agree(): void {
        const element = this.#element
        clearTimeout(this.#keeping)
        this.#keeping = undefined
        const node = this.place.node()
        const isThere = node?.kind === "text"
        if (isThere) this.#node = node
        if (isThere !== this.#isThere) {
            this.#isThere = isThere
            element.readOnly = this.#readOnly || !isThere
            if (!isThere && this.#node) this.options.onGone?.()
        }
        const text = this.#node?.kind === "text" ? this.#node.text : ""
        const { from, to, insert } = difference(element.value, text)
        let { selectionStart: start, selectionEnd: end } = element
        if (from < to || insert) element.setRangeText(insert, from, to, "preserve")
        const map = this.#map
        this.#shown = element.value
        // Lines end by "\n" in it, and an input has but one.
        const now = (this.#map = this.#shown === text ? undefined : aligned(this.#shown, text))
        if (!map || start === null || end === null) return
        // Behind what it was behind: the browser places it as if line ends were shown.
        const place = (at: number): number => {
            const unit = map.slice(0, at).findLast((unit) => unit >= 0) ?? -1
            return now ? now.filter((other) => other <= unit).length : unit + 1
        }
        this.#select((start = place(start)), Math.max(start, place(end)), element.selectionDirection ?? "none")
    }

    /** Of an element without the focus, it would take that in some browsers. */
    #select(start: number, end: number, direction: "forward" | "backward" | "none"): void {
        const element = this.#element
        const root = element.getRootNode() as Document | ShadowRoot
        if (root.activeElement !== element) return
        if (element.selectionStart === start && element.selectionEnd === end) return
        element.setSelectionRange(start, end, direction)
    }

    #menu(event: InputEvent): void {
        if (event.inputType === "historyUndo") this.#step(event, "undo")
        else if (event.inputType === "historyRedo") this.#step(event, "redo")
    }

    #key(event: KeyboardEvent): void {
        if (event.isComposing || event.altKey || event.ctrlKey === event.metaKey) return
        const key = event.key.toLowerCase()
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

/** Where an index is after an edit. */
function moved(index: number, { at, deleted, inserted }: TextEdit, isPushed: boolean): number {
    if (index < at || (index === at && !isPushed)) return index
    return index < at + deleted ? at : index + inserted.length - deleted
}

/** Where code units are after an edit. */
function movedAll(map: readonly number[], edit: TextEdit): number[] {
    const { at, deleted } = edit
    return map.map((index) => (index >= at && index < at + deleted ? -1 : moved(index, edit, true)))
}

/** Where what an element shows of a text is in it. */
function aligned(shown: string, text: string): number[] {
    const map: number[] = []
    let at = 0
    for (let unit = 0; unit < shown.length; unit++) {
        const isLine = shown[unit] === "\n"
        while (at < text.length && text[at] !== shown[unit] && !(isLine && text[at] === "\r")) at++
        map.push(at)
        at += text.startsWith("\r\n", at) ? 2 : 1
    }
    return map
}
