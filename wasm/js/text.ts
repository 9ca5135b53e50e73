// What bindings of editors and inputs need to know of texts.

/** Beyond so many patches, finding the one range in which texts differ is quicker. */
export const PATCHES_MAX = 500

/** What is composed by an input method is left alone for so long after the last key. */
export const HOLD_MS = 3_000

/** The one range in which two texts differ; where several would do, the one that ends before `until`. */
export function difference(
    before: string,
    after: string,
    until = Infinity,
): { from: number; to: number; insert: string } {
    const shorter = Math.min(before.length, after.length)
    let start = 0
    while (start < Math.min(shorter, until) && before.charCodeAt(start) === after.charCodeAt(start)) start++
    let end = 0
    while (
        end < shorter - start &&
        before.charCodeAt(before.length - 1 - end) === after.charCodeAt(after.length - 1 - end)
    ) {
        end++
    }
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
