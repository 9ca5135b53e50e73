/** The steps that a page keeps, and what becomes of them when the host cannot take them back. */

import assert from "node:assert/strict"
import { test } from "node:test"
import { Tree } from "../js/tree.js"
import { Undos } from "../js/undo.js"

const RECORD = new Uint8Array([1])

/** What a page did, a change a second, each with its name, and all of it recorded. */
function page(...names: string[]) {
    const undos = new Undos()
    const tree = new Tree()
    let seq = 0
    const make = (name: string): void => {
        seq++
        undos.made(seq, [["put", "_root", name, 1]], tree, seq, name)
        undos.recorded([[seq, RECORD]], seq)
    }
    names.forEach(make)
    const take = (direction: "back" | "again") => {
        const taking = undos.take(direction)
        assert.ok(taking)
        const { step, as } = taking
        const taken = { done: 2, record: RECORD, renamed: new Uint8Array(), objects: [] }
        return {
            name: step.name,
            around: step.around,
            succeeds: () => undos.taken(step, as, taken),
            fails: () => undos.failed(step, as),
        }
    }
    const undoAll = (): unknown[] => {
        const names: unknown[] = []
        while (undos.can("back")) {
            const taking = take("back")
            taking.succeeds()
            names.push(taking.name)
        }
        return names
    }
    return { undos, make, take, undoAll }
}

test("steps that could not be taken back are where they were", () => {
    for (const order of [
        [0, 1],
        [1, 0],
    ]) {
        const { take, undoAll } = page("a", "b", "c")
        const takings = [take("back"), take("back")]
        assert.deepEqual(
            takings.map(({ name }) => name),
            ["c", "b"],
        )
        for (const at of order) takings[at]!.fails()
        assert.deepEqual(undoAll(), ["c", "b", "a"])
    }
})

test("a step that could not be taken back is below what was done meanwhile", () => {
    const { make, take, undoAll } = page("a", "b")
    const taking = take("back")
    make("c")
    // Nor is it joined by what has its name.
    make("b")
    taking.fails()
    assert.deepEqual(undoAll(), ["b", "c", "b", "a"])
})

test("what could not be done again is not to be done again after an edit", () => {
    const { undos, make, take } = page("a")
    take("back").succeeds()
    const taking = take("again")
    make("b")
    taking.fails()
    assert.ok(!undos.can("again"))
})

test("a step that is being taken back hears of the new names of objects", () => {
    const { undos, take } = page("a")
    const taking = take("back")
    undos.rename(new Map([["_root", "other"]]))
    taking.fails()
    assert.deepEqual(take("back").around, ["other"])
})
