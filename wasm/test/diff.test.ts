import assert from "node:assert/strict"
import { test } from "node:test"
import { diff, snap } from "../js/diff.js"
import { random } from "./random.js"

function apply(text: string, edits: ReturnType<typeof diff>): string {
    for (const { index, deleted, inserted } of edits) {
        text = text.slice(0, index) + inserted + text.slice(index + deleted)
    }
    return text
}

function check(before: string, after: string, expected: [index: number, deleted: number, inserted: string][]): void {
    const edits = diff(before, after)
    assert.equal(apply(before, edits), after)
    assert.deepEqual(
        edits.map(({ index, deleted, inserted }) => [index, deleted, inserted]),
        expected,
    )
}

test("only what differs is replaced", () => {
    check("same", "same", [])
    check("", "new", [[0, 0, "new"]])
    check("old", "", [[0, 3, ""]])
    check("the cat sat", "the fat cat sat", [[4, 0, "fat "]])
    check("aaa", "aa", [[2, 1, ""]])
    check("hello brave world", "hallo brave worlds", [
        [1, 1, "a"],
        [17, 0, "s"],
    ])
})

test("a character of several code units is replaced as a whole", () => {
    check("a😀b", "a😁b", [[1, 2, "😁"]])
    check("😀", "😀😀", [[2, 0, "😀"]])
    // The letter, then its accent as a code point of its own.
    check("cafe\u0301", "cafe\u0300", [[3, 2, "e\u0300"]])
    check("e", "e\u0301", [[0, 1, "e\u0301"]])
    // A family: three people, joined; one leaves.
    check("x👨‍👩‍👧y", "x👨‍👩y", [[1, 8, "👨‍👩"]])
    check("x🇩🇪", "x🇩🇰", [[1, 4, "🇩🇰"]])
    check("\r\n", "\n", [[0, 2, "\n"]])
})

test("random texts become each other", () => {
    const { seed, below, pick } = random()
    const alphabet = ["a", "b", "c", " ", "😀", "e\u0301", "\r\n", "🇩🇪", "\uFFFC"]
    const text = (): string => Array.from({ length: below(30) }, () => pick(alphabet)).join("")
    for (let i = 0; i < 5000; i++) {
        const [before, after] = [text(), text()]
        assert.equal(apply(before, diff(before, after)), after, `RECONVERGE_SEED=${seed}`)
    }
})

test("texts with nothing in common take no long", () => {
    const letters = (first: number): string =>
        Array.from({ length: 50_000 }, (_, i) => String.fromCharCode(first + (i % 13))).join("")
    const start = performance.now()
    assert.equal(diff(letters(0x430), letters(0x440)).length, 1)
    assert.ok(performance.now() - start < 1000)
})

test("an index within a pair of surrogates becomes its end", () => {
    assert.deepEqual(
        [0, 1, 2, 3].map((index) => snap("a😀b", index)),
        [0, 1, 3, 3],
    )
    assert.equal(snap("a😀", 3), 3)
})
