// What editors tell each other of who types where.

import type { Cursor, Path } from "../types.js"

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

/** Whether it is one: a peer may send anything. */
export function isSelection(value: unknown): value is TextSelection {
    if (typeof value !== "object" || value === null) return false
    const { path, anchor, head } = value as Partial<Record<keyof TextSelection, unknown>>
    return Array.isArray(path) && typeof anchor === "string" && typeof head === "string"
}

export function nameOf(user: TextUser | null | undefined): string {
    const name = typeof user?.name === "string" ? user.name.trim().slice(0, 40) : ""
    return name || "Somebody"
}

const COLOR = /^(#[0-9a-f]{3,8}|[a-z]{3,30}|(rgb|hsl|oklch)a?\([\d\s.,%/a-z]{1,60}\))$/i

export function colorOf(user: TextUser | null | undefined): string {
    return typeof user?.color === "string" && COLOR.test(user.color) ? user.color : "#888888"
}
