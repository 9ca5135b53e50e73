import assert from "node:assert/strict"
import { test } from "node:test"
import type { Client } from "../dist/core/reconverge.js"
import type { HostMessage } from "../js/host/protocol.js"
import { View } from "../js/host/view.js"
import type { Operation } from "../js/operations.js"

/** A view of a text `t`, what its page is told, and what is made of the page's edits, at which heads. */
function setUp() {
    let changes = 0
    const told: HostMessage[] = []
    const made: { operations: Operation[]; at: string[] | undefined }[] = []
    const client = {
        change: (...args: unknown[]) => {
            made.push({ operations: args[1] as Operation[], at: args[5] as string[] | undefined })
            return `own${made.length}`
        },
        heads: () => [`theirs${changes}`],
        state: () => [],
        record: new Uint8Array(),
    }
    const view = new View(client as unknown as Client, "document", (message) => void told.push(message), ["first"])
    const type = (seq: number, at: number, seen: number): void => {
        const operations: Operation[] = [["splice", "t", at, 0, "x"]]
        view.edit({ seq, operations, time: 0, message: undefined }, seen, 0)
    }
    const changed = (operations: Operation[], whole: boolean): void => {
        changes++
        view.changed(operations, whole)
    }
    const others = (whole = false): void => changed(whole ? [] : [["splice", "t", 0, 0, "AAAAA"]], whole)
    /** Sets a value beside another that wins, or the like. */
    const unseen = (): void => changed([], false)
    return { view, told, made, type, others, unseen }
}

test("an edit made before an update is shifted by it and by what came after", () => {
    const { view, made, type, others } = setUp()
    others()
    view.update()
    others()
    type(1, 3, 0)
    assert.deepEqual(made, [{ operations: [["splice", "t", 13, 0, "x"]], at: undefined }])
})

test("a page that must forget what it shows edits it at its heads, unshifted", () => {
    const { view, made, type, others } = setUp()
    others()
    view.update()
    others(true)
    type(1, 3, 0)
    assert.deepEqual(made, [{ operations: [["splice", "t", 3, 0, "x"]], at: ["first"] }])
})

test("a page that must forget what no heads have is shifted by what is known", () => {
    const { told, made, type, others } = setUp()
    others()
    type(1, 3, 0)
    others(true)
    type(2, 4, 0)
    assert.deepEqual(made[1], { operations: [["splice", "t", 9, 0, "x"]], at: undefined })
    assert.ok(!told.some(({ type }) => type === "rejected"))
})

test("the heads are those of a change that nobody sees", () => {
    const { view, told, type, others, unseen } = setUp()
    unseen()
    assert.deepEqual(view.heads, ["theirs1"])
    assert.deepEqual(told, [])
    others()
    assert.deepEqual(view.heads, ["theirs1"], "of what the page shows")
    view.update()
    unseen()
    assert.deepEqual(view.heads, ["theirs3"], "of what the page will show")
    view.seen(1)
    assert.deepEqual(view.heads, ["theirs3"])
    type(1, 0, 1)
    unseen()
    assert.deepEqual(view.heads, ["theirs4"])
})
