import assert from "node:assert/strict"
import { test } from "node:test"
import { Counter } from "../js/counter.js"
import type { Operation } from "../js/operations.js"
import { Tree, ViewError, depth } from "../js/tree.js"
import type { Patch } from "../js/types.js"
import { random } from "./random.js"

function tree(...operations: Operation[]): Tree {
    const tree = new Tree()
    for (const operation of operations) tree.apply(operation)
    return tree
}

const document: Operation[] = [
    ["put", "_root", "todos", { make: "list", id: "1" }],
    ["insert", "1", 0, [{ make: "map", id: "2" }, { make: "text", id: "3", text: "abc" }, 7]],
    ["put", "2", "title", { make: "text", id: "4", text: "t" }],
    ["put", "2", "done", false],
    ["put", "_root", "other", { make: "map", id: "5" }],
    ["put", "5", "n", { counter: 3 }],
    ["put", "5", "fixed", "f"],
]

test("a view is frozen, and shares what did not change with the one before", () => {
    const t = tree(...document)
    const before = t.view() as any
    assert.deepEqual(before, {
        todos: [{ title: "t", done: false }, "abc", 7],
        other: { n: new Counter(3), fixed: "f" },
    })
    assert.equal(t.view(), before)
    for (const part of [before, before.todos, before.todos[0], before.other, before.other.n])
        assert.ok(Object.isFrozen(part))

    t.apply(["put", "2", "done", true])
    const after = t.view() as any
    assert.notEqual(after.todos[0], before.todos[0])
    assert.notEqual(after.todos, before.todos)
    assert.equal(after.other, before.other)

    t.apply(["increment", "5", "n", -2])
    const last = t.view() as any
    assert.equal(last.todos, after.todos)
    assert.deepEqual(last.other, { n: new Counter(1), fixed: "f" })
    assert.deepEqual(before.other.n, new Counter(3))
})

test("the depth of an object counts those in it, and in the blocks of a text", () => {
    const t = tree(
        ...document,
        ["insert", "3", 1, [{ make: "map", id: "6" }]],
        ["put", "6", "in", { make: "list", id: "7" }],
    )
    const deep = (id: string): number => depth(t.node(id)!)
    assert.deepEqual(["_root", "1", "2", "3", "4", "5", "6", "7"].map(deep), [5, 4, 2, 3, 1, 1, 2, 1])
})

test("of a long list, only the elements that changed are new", () => {
    const ids = Array.from({ length: 50 }, (_, i) => `m${i}`)
    const t = tree(
        ["put", "_root", "l", { make: "list", id: "l" }],
        ["insert", "l", 0, ids.map((id) => ({ make: "map", id }))],
    )
    let count = 0
    const check = (changed: number[]): void => {
        const before = (t.view() as any).l
        for (const index of changed) t.apply(["put", ids[index]!, "x", ++count])
        const after = (t.view() as any).l
        assert.ok(Object.isFrozen(after))
        after.forEach((element: unknown, i: number) =>
            assert.equal(element !== before[i], changed.includes(i), String(i)),
        )
    }
    check([7])
    check([3, 3, 49])
    check(Array.from({ length: 30 }, (_, i) => i))
    t.apply(["insert", "l", 0, [{ make: "text", id: "t", text: "a" }]])
    t.view()
    t.apply(["splice", "t", 1, 0, "b"])
    t.apply(["put", "m0", "x", 5])
    assert.deepEqual((t.view() as any).l.slice(0, 2), ["ab", { x: 5 }])
    t.apply(["put", "m1", "x", 6])
    t.apply(["delete", "l", 1, 2])
    assert.equal((t.view() as any).l.length, 49)
})

test("operations become patches, with paths as of then", () => {
    const t = new Tree()
    const patches: Patch[] = []
    for (const operation of document) t.apply(operation, patches)
    assert.deepEqual(patches.splice(0), [
        { action: "put", path: ["todos"], value: [] },
        { action: "insert", path: ["todos", 0], values: [{}, "", 7] },
        { action: "splice", path: ["todos", 1, 0], value: "abc" },
        { action: "put", path: ["todos", 0, "title"], value: "" },
        { action: "splice", path: ["todos", 0, "title", 0], value: "t" },
        { action: "put", path: ["todos", 0, "done"], value: false },
        { action: "put", path: ["other"], value: {} },
        { action: "put", path: ["other", "n"], value: 3 },
        { action: "put", path: ["other", "fixed"], value: "f" },
    ])
    const more: Operation[] = [
        ["insert", "1", 0, [null, null]],
        ["put", "2", "done", true],
        ["splice", "3", 1, 1, "xy"],
        ["insert", "3", 2, [{ make: "map", id: "6" }]],
        ["put", "6", "type", "p"],
        ["mark", "3", 0, 2, "bold", true, "after"],
        ["mark", "3", 0, 1, "bold", null, "none"],
        ["mark", "3", 4, 9, "bold", true, "none"],
        ["mark", "3", 5, 9, "bold", true, "none"],
        ["increment", "5", "n", 2],
        ["delete", "1", 0, 2],
        ["put", "2", "done", false],
        ["delete", "1", 0, 1],
        ["delete", "5", "fixed", 1],
        ["delete", "5", "missing", 1],
    ]
    for (const operation of more) assert.ok(t.apply(operation, patches))
    assert.deepEqual(patches, [
        { action: "insert", path: ["todos", 0], values: [null, null] },
        { action: "put", path: ["todos", 2, "done"], value: true },
        { action: "del", path: ["todos", 3, 1] },
        { action: "splice", path: ["todos", 3, 1], value: "xy" },
        { action: "insert", path: ["todos", 3, 2], values: [{}] },
        { action: "put", path: ["todos", 3, 2, "type"], value: "p" },
        { action: "mark", path: ["todos", 3], marks: [{ name: "bold", start: 0, end: 2, value: true }] },
        { action: "unmark", path: ["todos", 3], name: "bold", start: 0, end: 1 },
        { action: "mark", path: ["todos", 3], marks: [{ name: "bold", start: 4, end: 5, value: true }] },
        { action: "inc", path: ["other", "n"], value: 2 },
        { action: "del", path: ["todos", 0], length: 2 },
        { action: "put", path: ["todos", 0, "done"], value: false },
        { action: "del", path: ["todos", 0] },
        { action: "del", path: ["other", "fixed"] },
    ])
    assert.deepEqual(t.view(), { todos: ["ax\uFFFCyc", 7], other: { n: new Counter(5) } })
})

test("what is for a removed object, or for one in it, is passed over", () => {
    const t = tree(...document, ["delete", "_root", "todos", 1])
    const before = t.view()
    const patches: Patch[] = []
    for (const operation of [
        ["put", "2", "done", true],
        ["put", "2", "in", { make: "map", id: "7" }],
        ["put", "7", "x", 1],
        ["splice", "4", 900, 1, "x"],
        ["insert", "1", 0, [1]],
    ] as Operation[]) {
        assert.equal(t.apply(operation, patches), false)
    }
    t.rename("2", "9")
    assert.equal(t.view(), before)
    assert.deepEqual(patches, [])
    for (const id of ["1", "2", "3", "4", "9"]) assert.equal(t.node(id), undefined)
    // Its name may come back, as when another's edit is chosen over it and then removed.
    t.apply(["put", "_root", "todos", { make: "list", id: "1" }])
    assert.deepEqual(t.view(), { todos: [], other: { n: new Counter(3), fixed: "f" } })
})

test("an object replaced by itself is read anew", () => {
    const t = tree(...document)
    t.apply(["put", "_root", "other", { make: "map", id: "5" }])
    t.apply(["put", "5", "x", 1])
    assert.deepEqual((t.view() as any).other, { x: 1 })
})

test("an object gets the name that the host has for it", () => {
    const t = tree(["put", "_root", "m", { make: "map", id: "~1" }], ["put", "~1", "x", 1])
    const before = t.view()
    t.rename("~1", "5@aa")
    assert.equal(t.view(), before)
    assert.equal(t.apply(["put", "~1", "x", 2]), false)
    assert.ok(t.apply(["put", "5@aa", "x", 3]))
    assert.deepEqual(t.view(), { m: { x: 3 } })
    assert.throws(() => t.rename("_root", "5@aa"), ViewError)
})

test("what does not fit is an error of its own kind", () => {
    const bad: unknown[] = [
        null,
        [],
        ["put", null, "x", 1],
        ["what", "_root"],
        ["put", "_root", 1, 1],
        ["put", "1", "x", 1],
        ["put", "1", 3, 1],
        ["put", "1", 0.5, 1],
        ["put", "3", 0, 1],
        ["put", "2", "x", undefined],
        ["put", "2", "x", {}],
        ["put", "2", "x", { make: "table", id: "8" }],
        ["put", "2", "x", { make: "toString", id: "8" }],
        ["put", "2", "x", { make: "map", id: 8 }],
        ["put", "2", "x", { make: "map", id: "5" }],
        ["put", "2", "x", { make: "map", id: "_root" }],
        ["insert", "2", 0, [1]],
        ["insert", "1", 4, [1]],
        ["insert", "1", -1, [1]],
        ["insert", "1", 0, 1],
        ["insert", "3", 0, [1]],
        ["delete", "1", 2, 2],
        ["delete", "1", "0", 1],
        ["delete", "1", 0, -1],
        ["splice", "1", 0, 0, "x"],
        ["splice", "3", 2, 2, "x"],
        ["splice", "3", NaN, 0, "x"],
        ["splice", "3", 0, 0],
        ["increment", "2", "done", 1],
        ["increment", "3", 0, 1],
        ["increment", "5", "n", "1"],
        ["mark", "2", 0, 0, "b", true, "none"],
    ]
    for (const operation of bad) {
        assert.throws(() => tree(...document).apply(operation as Operation), ViewError, JSON.stringify(operation))
    }
})

test("whatever comes is applied, or is an error of that kind", () => {
    const { seed, below, pick } = random()
    const prop = (): unknown => pick(["title", "todos", "n", 0, 1, 2, -1, 1.5, NaN, null, undefined, {}])
    const value = (): unknown =>
        pick([
            null,
            1,
            "s",
            undefined,
            {},
            [],
            { counter: 1 },
            { counter: "1" },
            { make: pick(["map", "list", "text", "x"]), id: `n${below(200)}` },
            () => {},
        ])
    for (let run = 0; run < 300; run++) {
        const t = tree(...document)
        for (let i = 0; i < 20; i++) {
            const action = pick(["put", "insert", "delete", "splice", "increment", "mark"])
            const rest = pick([
                [value()],
                [[value(), value()]],
                [below(3)],
                [below(3), "text"],
                [below(3), "b", true, "none"],
                [],
            ])
            try {
                t.apply(
                    [action, pick(["_root", "1", "2", "3", "5", "none"]), prop(), ...rest] as unknown as Operation,
                    [],
                )
                t.view()
            } catch (error) {
                assert.ok(error instanceof ViewError, `RECONVERGE_SEED=${seed}: ${(error as Error).stack}`)
                break
            }
        }
    }
})

test("a rollback leaves the very same view", () => {
    const t = tree(...document)
    const before = t.view()
    t.begin()
    const edits: Operation[] = [
        ["insert", "3", 1, [{ make: "map", id: "6" }]],
        ["splice", "3", 0, 2, "new"],
        ["put", "1", 0, { make: "list", id: "8" }],
        ["delete", "_root", "other", 1],
        ["put", "_root", "other", { make: "map", id: "5" }],
        ["delete", "1", 0, 3],
    ]
    for (const edit of edits) assert.ok(t.apply(edit))
    // What was shown in between must not be remembered.
    assert.deepEqual(t.view(), { todos: [], other: {} })
    t.rollback()
    assert.equal(t.view(), before)
    for (const operation of [
        ["put", "2", "x", 1],
        ["splice", "4", 1, 0, "!"],
        ["increment", "5", "n", 1],
    ] as Operation[]) {
        assert.ok(t.apply(operation))
    }
    assert.deepEqual(t.view(), {
        todos: [{ title: "t!", done: false, x: 1 }, "abc", 7],
        other: { n: new Counter(4), fixed: "f" },
    })
})

test("a document may be as deep as its peers made it, and have any key", () => {
    const t = new Tree()
    let id = "_root"
    for (let i = 0; i < 100_000; i++) {
        t.apply(["put", id, "in", { make: "map", id: String(i) }])
        id = String(i)
    }
    t.apply(["put", id, "__proto__", 1])
    let inner = t.view() as any
    while (inner.in) inner = inner.in
    assert.deepEqual(Object.entries(inner), [["__proto__", 1]])
    assert.equal(Object.getPrototypeOf(inner), Object.prototype)
    t.apply(["delete", "_root", "in", 1])
    assert.equal(t.node(id), undefined)
})
