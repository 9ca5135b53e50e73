import assert from "node:assert/strict"
import { test } from "node:test"
import { Counter } from "../js/counter.js"
import { change, deleteAt, insertAt, mark, splice, type Draft } from "../js/draft.js"
import { place, shift } from "../js/host/shift.js"
import type { Operation } from "../js/operations.js"
import { Tree } from "../js/tree.js"
import { type Random, random } from "./random.js"

interface Doc {
    text: string
    list: unknown[]
    map: Record<string, unknown>
}

const LETTERS = "abcdefghijklmnopqrstuvwxyz"

/** One to three random edits. */
function edit(dice: Random, doc: Draft<Doc>): void {
    for (let i = dice.below(3); i >= 0; i--) {
        const { text, list, map } = doc as Doc
        const key = dice.pick(["a", "b", "c"])
        const values = [dice.below(100), { in: "it" }, new Counter(dice.below(9))]
        const at = dice.below(list.length + 1)
        switch (dice.below(12)) {
            case 0:
            case 1:
            case 2: {
                const at = dice.below(text.length + 1)
                const deleted = dice.below(Math.min(4, text.length - at + 1))
                splice(doc, ["text"], at, deleted, LETTERS.slice(0, dice.below(4)))
                break
            }
            case 3:
            case 4:
                insertAt(list, at, ...values.slice(dice.below(3)))
                break
            case 5:
                deleteAt(list, at, dice.below(Math.min(4, list.length - at + 1)))
                break
            case 6:
                if (at < list.length) list[at] = dice.pick(values)
                break
            case 7:
                map[key] = dice.pick(values)
                break
            case 8:
                delete map[key]
                break
            case 9: {
                const counters = [...Object.values(map), ...list].filter((value) => value instanceof Counter)
                if (counters.length > 0) dice.pick(counters).increment(1 + dice.below(9))
                break
            }
            case 10: {
                const objects = [...Object.values(map), ...list].filter((value) => isMap(value))
                if (objects.length > 0) dice.pick(objects)[key] = dice.below(100)
                break
            }
            case 11:
                if (text.length > 2) mark(doc, ["text"], { start: at % 2, end: 2 }, "bold", true)
        }
    }
}

function isMap(value: unknown): value is Record<string, unknown> {
    return typeof value === "object" && value !== null && !(value instanceof Counter)
}

test("edits and what others changed come to the same, whichever is first", () => {
    const dice = random()
    for (let round = 0; round < 5000; round++) {
        const page = new Tree()
        const host = new Tree()
        let objects = 0
        const make = (tree: Tree, fn: (draft: Draft<Doc>) => void): Operation[] =>
            change<Doc>(tree, fn, () => `~${++objects}`)
        const start = make(page, (draft) => {
            draft.text = LETTERS.slice(0, dice.below(8))
            draft.list = [1, { two: 2 }, new Counter(3)]
            draft.map = { a: 1, b: {}, c: new Counter(5) }
        })
        for (const operation of start) host.apply(operation)
        let others: Operation[] = []
        for (let i = dice.below(6); i >= 0; i--) {
            if (dice.chance(0.5)) {
                others.push(...make(host, (draft) => edit(dice, draft)))
                continue
            }
            const own = make(page, (draft) => edit(dice, draft))
            const [shifted, left] = shift(own, others, (name) => name)
            for (const operation of shifted) host.apply(operation)
            others = left
        }
        for (const operation of others) page.apply(operation)
        assert.deepEqual(page.view(), host.view(), `RECONVERGE_SEED=${dice.seed}, round ${round}`)
    }
})

const splices = (...all: [number, number, string][]): Operation[] =>
    all.map(([at, deleted, text]) => ["splice", "text", at, deleted, text])

function check(own: Operation[], others: Operation[], edit: Operation[], left: Operation[]): void {
    assert.deepEqual(
        shift(own, others, (name) => name),
        [edit, left],
    )
}

test("what one inserts within what the other removes stays", () => {
    check(splices([2, 4, ""]), splices([4, 0, "new"]), splices([2, 2, ""], [5, 2, ""]), splices([2, 0, "new"]))
    check(splices([4, 0, "new"]), splices([2, 4, ""]), splices([2, 0, "new"]), splices([2, 2, ""], [5, 2, ""]))
})

test("what both remove is removed once", () => {
    check(splices([2, 4, ""]), splices([4, 4, ""]), splices([2, 2, ""]), splices([2, 2, ""]))
    check(splices([2, 4, ""]), splices([2, 4, ""]), [], [])
})

test("in one place, the page's own words stay together", () => {
    check(splices([3, 0, "a"]), splices([3, 0, "xyz"]), splices([3, 0, "a"]), splices([4, 0, "xyz"]))
    check(splices([4, 0, "b"]), splices([4, 0, "xyz"]), splices([4, 0, "b"]), splices([5, 0, "xyz"]))
})

test("a value that one sets while the other removes it stays", () => {
    const set: Operation[] = [["put", "list", 2, "kept"]]
    const inserted: Operation[] = [["insert", "list", 1, ["kept"]]]
    const removed: Operation[] = [["delete", "list", 1, 3]]
    const around: Operation[] = [
        ["delete", "list", 1, 1],
        ["delete", "list", 2, 1],
    ]
    check(set, removed, inserted, around)
    check(removed, set, around, inserted)
    check([["delete", "map", "key", 1]], [["put", "map", "key", 1]], [], [["put", "map", "key", 1]])
    check([["put", "map", "key", 1]], [["delete", "map", "key", 1]], [["put", "map", "key", 1]], [])
})

test("of two values the page's own stays, and what both add to a counter is added", () => {
    check([["put", "map", "key", 1]], [["put", "map", "key", 2]], [["put", "map", "key", 1]], [])
    const [two, three]: Operation[][] = [[["increment", "map", "key", 2]], [["increment", "map", "key", 3]]]
    check(two!, three!, two!, three!)
    const sum: Operation[] = [["put", "map", "key", { counter: 12 }]]
    check(two!, [["put", "map", "key", { counter: 10 }]], two!, sum)
})

test("marks move with the text, and cover no other's of their name", () => {
    const marked = (start: number, end: number, value: string): Operation[] => [
        ["mark", "text", start, end, "color", value, "none"],
    ]
    check(splices([3, 0, "abc"]), marked(2, 5, "red"), splices([3, 0, "abc"]), marked(2, 8, "red"))
    check(marked(2, 5, "red"), splices([1, 2, ""]), marked(1, 3, "red"), splices([1, 2, ""]))
    check(marked(2, 4, "red"), splices([1, 9, ""]), [], splices([1, 9, ""]))
    check(marked(2, 4, "red"), marked(0, 6, "blue"), marked(2, 4, "red"), [
        ...marked(0, 2, "blue"),
        ...marked(4, 6, "blue"),
    ])
})

test("a place is found again", () => {
    const others: Operation[] = [...splices([2, 3, ""], [0, 0, "ab"]), ["insert", "list", 0, [1]]]
    assert.deepEqual(
        [0, 1, 2, 4, 5, 9].map((index) => place(index, "text", others)),
        [2, 3, 4, 4, 4, 8],
    )
    assert.deepEqual(
        [0, 2, 3, 4, 8].map((index) => place(index, "text", others, true)),
        [0, 0, 1, 5, 9],
    )
    assert.equal(place(3, "list", others), 4)
})
