/** The text, in CodeMirror, with the carets of others. */

import { defaultKeymap } from "@codemirror/commands"
import { defineLanguageFacet, HighlightStyle, Language, syntaxHighlighting } from "@codemirror/language"
import { EditorState, type Extension } from "@codemirror/state"
import { drawSelection, dropCursor, EditorView, keymap, placeholder } from "@codemirror/view"
import { tags } from "@lezer/highlight"
import { GFM, parser } from "@lezer/markdown"
import { reconvergeText } from "reconverge/codemirror"
import { byId } from "./dom.js"
import type { BoardHandle, ShownBoard } from "./model.js"
import type { Here } from "./people.js"

const highlighting = HighlightStyle.define([
    { tag: tags.heading1, class: "md-h1" },
    { tag: tags.heading, class: "md-h" },
    { tag: tags.strong, class: "md-strong" },
    { tag: tags.emphasis, class: "md-em" },
    { tag: tags.strikethrough, class: "md-strike" },
    { tag: [tags.monospace], class: "md-code" },
    { tag: [tags.link, tags.url], class: "md-link" },
    { tag: tags.quote, class: "md-quote" },
    { tag: [tags.processingInstruction, tags.contentSeparator, tags.meta], class: "md-mark" },
])

// The package lang-markdown would bring the languages of web pages too, to colour them within.
const markdown = new Language(defineLanguageFacet(), parser.configure(GFM), [], "markdown")

const look: Extension = [
    EditorView.lineWrapping,
    markdown,
    syntaxHighlighting(highlighting),
    EditorView.contentAttributes.of({ "aria-label": "Notes" }),
]

export class Writing {
    readonly #live: EditorView
    #past: EditorView | undefined

    constructor(handle: BoardHandle, here: Here) {
        this.#live = new EditorView({
            parent: byId("notes"),
            extensions: [
                look,
                drawSelection(),
                dropCursor(),
                placeholder("Write something. Whoever has the link sees it while you type."),
                EditorView.contentAttributes.of({ spellcheck: "true", autocapitalize: "sentences" }),
                keymap.of(defaultKeymap),
                reconvergeText(handle, ["text"], { presence: here.presence }),
            ],
        })
    }

    /** Shows the text of an earlier state, or the present again. */
    show(past: ShownBoard | undefined): void {
        this.#live.dom.hidden = past !== undefined
        if (past === undefined) {
            this.#past?.destroy()
            this.#past = undefined
            this.#live.requestMeasure()
            return
        }
        this.#past ??= new EditorView({
            parent: byId("notes"),
            extensions: [look, EditorState.readOnly.of(true), EditorState.lineSeparator.of("\n")],
        })
        const { doc } = this.#past.state
        if (doc.toString() === past.text) return
        this.#past.dispatch({ changes: { from: 0, to: doc.length, insert: past.text } })
    }
}
