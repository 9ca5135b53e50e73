// Carets and selections of others, as an editor shows them.

import { EditorSelection, StateEffect, StateField, type ChangeDesc, type Extension } from "@codemirror/state"
import { EditorView, RectangleMarker, layer, type LayerMarker, type ViewUpdate } from "@codemirror/view"
import type { Cursor } from "../types.js"

/** Where somebody else is in the text of this editor. */
export interface Peer {
    readonly id: string
    readonly name: string
    readonly color: string
    readonly anchor: number
    readonly head: number
    /** The cursor, as its owner told it. */
    readonly at: Cursor
}

/** A cursor stays before the character that it names, so text inserted there pushes it on. */
export function movePeer(peer: Peer, changes: ChangeDesc): Peer {
    const move = (at: number): number => changes.mapPos(Math.min(at, changes.length), 1)
    return { ...peer, anchor: move(peer.anchor), head: move(peer.head) }
}

/** Tells where the others are now. */
export const setPeers = StateEffect.define<readonly Peer[]>()

/** Where the others are. */
export const peers = StateField.define<readonly Peer[]>({
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

/** Shows them. */
export const peersShown: Extension = [peers, peerSelections, peerCarets, peersTheme]
