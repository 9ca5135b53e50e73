/** The edits that make one text another. */

export interface TextEdit {
    /** Where, after the edits before it. */
    index: number
    deleted: number
    inserted: string
}

/** Texts that differ in more characters than this are not compared further, as time grows with its square. */
const DISTANCE_MAX = 400

/**
 * Few edits that make `before` `after`: what both begin and end with is left alone, and between
 * that as many characters as possible (Myers, "An O(ND) Difference Algorithm", 1986), unless the
 * texts have little in common. What a reader takes for one character is replaced as a whole.
 */
export function diff(before: string, after: string): TextEdit[] {
    if (before === after) return []
    const shorter = Math.min(before.length, after.length)
    let start = 0
    while (start < shorter && before[start] === after[start]) start++
    while (joins(before, start) || joins(after, start)) start--
    let same = 0
    while (same < shorter - start && before[before.length - 1 - same] === after[after.length - 1 - same]) same++
    while (joins(before, before.length - same) || joins(after, after.length - same)) same--
    const old = characters(before.slice(start, before.length - same))
    const young = characters(after.slice(start, after.length - same))
    return joined(old, young, kept(old, young), start)
}

/** An index within a pair of surrogates becomes that of its end. */
export function snap(text: string, index: number): number {
    return index > 0 && text.codePointAt(index - 1)! > 0xffff ? index + 1 : index
}

/** What belongs to the character before it: accents, tones of skin, the parts of flags and of Hangul syllables. */
const CONTINUATION = /^[\p{M}\p{EMod}\u200c\u200d\u1160-\u11ff\u{e0020}-\u{e007f}]/u
const FLAG = /^\p{RI}{2}/u

/**
 * Whether an index is within what a reader takes for one character. Near to Unicode's rules (UAX
 * 29); `Intl.Segmenter` has them all, but takes seconds for a text of 50,000 characters in V8.
 */
function joins(text: string, index: number): boolean {
    if (index <= 0 || index >= text.length) return false
    const before = text.charCodeAt(index - 1)
    const after = text.charCodeAt(index)
    if (after < 0x300) return before === 0x0d && after === 0x0a
    return (
        snap(text, index) !== index ||
        before === 0x200d ||
        CONTINUATION.test(text.slice(index, index + 2)) ||
        FLAG.test(text.slice(index - 2, index + 2))
    )
}

function characters(text: string): string[] {
    const characters: string[] = []
    let start = 0
    for (let end = 1; end <= text.length; end++) {
        if (joins(text, end)) continue
        characters.push(text.slice(start, end))
        start = end
    }
    return characters
}

/** The characters that both have, as ascending pairs of their indexes; none, if that takes too long. */
function kept(a: readonly string[], b: readonly string[]): [number, number][] {
    const distanceMax = Math.min(a.length + b.length, DISTANCE_MAX)
    // How far into `a` a path gets that ends with k more deletions than insertions, at k + zero.
    const reached = new Int32Array(2 * distanceMax + 3)
    const zero = distanceMax + 1
    const steps: Int32Array[] = []

    for (let d = 0; d <= distanceMax; d++) {
        const from = reached.slice()
        steps.push(from)
        for (let k = -d; k <= d; k += 2) {
            let x = inserts(from, k + zero, d, k) ? from[k + 1 + zero]! : from[k - 1 + zero]! + 1
            while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++
            reached[k + zero] = x
            if (x >= a.length && x - k >= b.length) return backwards(x, k, zero, steps)
        }
    }
    return []
}

/** Whether the best path's last step before diagonal k is an insertion; else it is a deletion. */
function inserts(from: Int32Array, at: number, d: number, k: number): boolean {
    return k === -d || (k !== d && from[at - 1]! < from[at + 1]!)
}

function backwards(x: number, k: number, zero: number, steps: Int32Array[]): [number, number][] {
    const pairs: [number, number][] = []
    for (let d = steps.length - 1; d >= 0; d--) {
        const from = steps[d]!
        const previous = inserts(from, k + zero, d, k) ? k + 1 : k - 1
        const start = from[previous + zero]! + (previous < k ? 1 : 0)
        while (x > start) pairs.push([--x, x - k])
        x = from[previous + zero]!
        k = previous
    }
    return pairs.reverse()
}

function joined(a: readonly string[], b: readonly string[], pairs: [number, number][], start: number): TextEdit[] {
    const edits: TextEdit[] = []
    let [x, y, index] = [0, 0, start]
    for (const [nextX, nextY] of [...pairs, [a.length, b.length] as const]) {
        const deleted = a.slice(x, nextX).join("").length
        const inserted = b.slice(y, nextY).join("")
        if (deleted > 0 || inserted) edits.push({ index, deleted, inserted })
        index += inserted.length + (a[nextX]?.length ?? 0)
        x = nextX + 1
        y = nextY + 1
    }
    return edits
}
