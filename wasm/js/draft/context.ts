// What a draft stands for, and what copies of it tell of that.

import { Counter } from "../counter.js"
import type { Entry, MapNode, Node } from "../tree.js"
import { isObject } from "./values.js"

/** The run of `change` in which a draft was handed out. */
export interface Run {
    /** Throws if it has ended. */
    checkOpen(): void
}

export interface Context {
    edit: Run
    node: Node
    /** What it holds by now, if it was edited since it lost its place in the document: plain data with drafts in it. */
    own?: object | undefined
    /** That, if the object has no place: from now on. */
    loose(): object | undefined
}

/** Where a draft tells what it stands for. */
export const CONTEXT = Symbol()

/** Where the draft of a counter tells what it stands for. */
export const COUNTER = Symbol()

export function contextIn(value: object): Context | undefined {
    return (value as { [CONTEXT]?: Context })[CONTEXT]
}

/**
 * What a copy of a draft tells of what: what spreads an object copies its symbols, too, and each draft has
 * one of its own, under which this is. Nobody else is to see it.
 */
export class Source {
    readonly #draft: Context

    constructor(draft: Context) {
        this.#draft = draft
    }

    static nodeOf(source: unknown): MapNode[] {
        return source instanceof Source ? [source.#draft.node as MapNode] : []
    }
}

/** The objects that were spread in this one, the last first. */
export function sourcesOf(value: unknown): MapNode[] {
    if (!isObject(value) || contextIn(value)) return []
    const symbols = Object.getOwnPropertySymbols(value).reverse()
    return symbols.flatMap((symbol) => Source.nodeOf((value as Record<symbol, unknown>)[symbol]))
}

/** What a draft stands for. */
export function nodeIn(value: object): Entry | undefined {
    return (
        contextIn(value)?.node ?? (value instanceof Counter ? (value as { [COUNTER]?: Counter })[COUNTER] : undefined)
    )
}
