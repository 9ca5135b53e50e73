// What bindings of editors and inputs need to know of texts.

import type { Path } from "./types.js"

/** Beyond so many patches, finding the one range in which texts differ is quicker. */
export const PATCHES_MAX = 500

/** What is composed by an input method is left alone for so long after the last key. */
export const HOLD_MS = 3_000

/** The one range of whole characters in which two texts differ; where several would do, the one that ends before `until`. */
export function difference(
    before: string,
    after: string,
    until = Infinity,
): { from: number; to: number; insert: string } {
    const shorter = Math.min(before.length, after.length)
    let start = 0
    while (start < Math.min(shorter, until) && before.charCodeAt(start) === after.charCodeAt(start)) start++
    if (splitsCharacter(before, start) || splitsCharacter(after, start)) start--
    let end = 0
    while (
        end < shorter - start &&
        before.charCodeAt(before.length - 1 - end) === after.charCodeAt(after.length - 1 - end)
    ) {
        end++
    }
    if (splitsCharacter(before, before.length - end) || splitsCharacter(after, after.length - end)) end--
    return { from: start, to: before.length - end, insert: after.slice(start, after.length - end) }
}

/**
 * The edit that leaves no half of a character: halves cannot be stored, and an index between them
 * would name another place.
 */
export function wholeCharacters(
    text: string,
    from: number,
    to: number,
    insert: string,
): [from: number, to: number, insert: string] {
    if (splitsCharacter(text, from)) insert = text.charAt(--from) + insert
    if (splitsCharacter(text, to)) insert += text.charAt(to++)
    return [from, to, insert.replace(/\p{Surrogate}/gu, "\ufffd")]
}

function splitsCharacter(text: string, at: number): boolean {
    const isHalf = (index: number, first: number): boolean => (text.charCodeAt(index) & 0xfc00) === first
    return isHalf(at - 1, 0xd800) && isHalf(at, 0xdc00)
}

/**
 * Calls `focus` when the element has lost the focus to nothing, because it or what it is in was moved
 * in the page, as lists are when somebody else moves an item. Gives what ends that.
 */
export function keepFocus(element: HTMLElement, focus: () => void): () => void {
    const look = (records: readonly MutationRecord[]): void => {
        const { activeElement, body } = element.ownerDocument
        const isMoved = records.some(({ removedNodes }) => [...removedNodes].some((node) => node.contains(element)))
        if (isMoved && element.isConnected && (activeElement ?? body) === body) focus()
        if (!hasFocus(element)) observer.disconnect()
    }
    const observer = new MutationObserver(look)
    const begin = (): void => observer.observe(element.getRootNode(), { childList: true, subtree: true })
    // Some browsers say so before it is moved, which is done when this is called; others say nothing.
    const left = (): void => queueMicrotask(() => look(observer.takeRecords()))
    element.addEventListener("focus", begin)
    element.addEventListener("blur", left)
    if (hasFocus(element)) begin()
    return () => {
        element.removeEventListener("focus", begin)
        element.removeEventListener("blur", left)
        observer.disconnect()
    }
}

/** Whether what is typed goes there. */
export function hasFocus(element: HTMLElement): boolean {
    return (element.getRootNode() as Document | ShadowRoot).activeElement === element
}

export function samePath(one: Path, other: Path): boolean {
    return one.length === other.length && one.every((prop, at) => prop === other[at])
}
