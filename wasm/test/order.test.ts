/** Items of a map that are in order, and moved by several people at once. */

import assert from "node:assert/strict"
import { test } from "node:test"
import { ImmutableString } from "../js/counter.js"
import { snapshot, splice } from "../js/draft.js"
import { inOrder, insertInOrder, moveInOrder } from "../js/order.js"
import { Page } from "./page.js"
import { random } from "./random.js"
import { Replica } from "./replica.js"

const RUNS = Number(process.env["RECONVERGE_RUNS"] ?? 60)

const ids = (doc: any): string[] => inOrder(doc.cards).map(([id]) => id)

test("items are inserted and moved as in an array", (t) => {
    const r = random()
    t.diagnostic(`RECONVERGE_SEED=${r.seed}`)
    const page = new Page<any>({ cards: {} })
    const model: string[] = []
    for (let step = 0; step < 2000; step++) {
        const id = r.pick([...model, `${step}`])
        const at = r.below(model.length + 2)
        if (model.includes(id)) {
            model.splice(model.indexOf(id), 1)
            if (r.chance(0.3)) {
                page.change((d) => delete d.cards[id])
            } else {
                page.change((d) => moveInOrder(d.cards, id, at))
                model.splice(at, 0, id)
            }
        } else {
            page.change((d) => insertInOrder(d.cards, id, { title: id }, r.chance(0.2) ? undefined : at))
            const shown = ids(page.doc).indexOf(id)
            assert.ok(shown === Math.min(at, model.length) || shown === model.length)
            model.splice(shown, 0, id)
        }
        assert.deepEqual(ids(page.doc), model)
    }
})

test("who moves, edits and deletes items at once ends with each of them once, in one order", (t) => {
    const r = random()
    t.diagnostic(`RECONVERGE_SEED=${r.seed}`)
    let merged = 0
    for (let run = 0; run < RUNS; run++) {
        const all = [1, 2, 3].map((actor) => new Replica(actor))
        const [first] = all as [Replica, Replica, Replica]
        first.change((d) => {
            d.cards = {}
            for (let n = 0; n < 8; n++) insertInOrder(d.cards, `c${n}`, { title: "" })
        })
        const deleted = new Set<string>()
        const there = new Set(ids(first.doc))
        const typed = new Map<string, number>()
        for (let round = 0; round < 3; round++) {
            for (const one of all) for (const other of all) if (one !== other) one.merge(other)
            for (const [n, replica] of all.entries()) {
                for (let step = 0; step < 3; step++) {
                    const id = r.pick(ids(replica.doc))
                    if (id === undefined) continue
                    const at = r.below(9)
                    switch (r.below(5)) {
                        case 0:
                            deleted.add(id)
                            replica.change((d) => delete d.cards[id])
                            break
                        case 1:
                            there.add(`${n}.${round}.${step}`)
                            replica.change((d) => insertInOrder(d.cards, `${n}.${round}.${step}`, { title: "" }, at))
                            break
                        case 2:
                            typed.set(id, (typed.get(id) ?? 0) + 1)
                            replica.change((d) => splice(d, ["cards", id, "title"], 0, 0, "x"))
                            break
                        default:
                            replica.change((d) => moveInOrder(d.cards, id, at))
                            assert.equal(ids(replica.doc).indexOf(id), Math.min(at, ids(replica.doc).length - 1))
                    }
                }
            }
        }
        for (let pass = 0; pass < 2; pass++)
            for (const one of all) for (const other of all) if (one !== other) one.merge(other)
        const shown = ids(first.doc)
        for (const other of all) assert.deepEqual(ids(other.doc), shown)
        assert.deepEqual([...shown].sort(), [...there].filter((id) => !deleted.has(id)).sort())
        for (const [id, { title }] of inOrder<{ title: string }>(first.doc.cards)) {
            assert.equal(title.length, typed.get(id) ?? 0)
            merged++
        }
        for (const { host } of all) host.close()
    }
    assert.ok(merged > RUNS)
})

test("who puts an item between two that others inserted at one place moves neither of them", () => {
    for (let run = 0; run < 20; run++) {
        const [one, other] = [new Replica(1), new Replica(2)]
        one.change((d) => {
            d.cards = {}
            for (const id of ["p", "s"]) insertInOrder(d.cards, id, {})
        })
        other.merge(one)
        one.change((d) => insertInOrder(d.cards, "q", {}, 1))
        other.change((d) => insertInOrder(d.cards, "r", {}, 1))
        for (const replica of [one, other]) replica.merge(replica === one ? other : one)
        const [, first, second] = ids(one.doc)
        one.change((d) => insertInOrder(d.cards, "x", {}, 2))
        other.change((d) => moveInOrder(d.cards, second!, 3))
        for (const replica of [one, other]) replica.merge(replica === one ? other : one)
        assert.deepEqual(ids(one.doc), ["p", first, "x", "s", second])
        for (const { host } of [one, other]) host.close()
    }
})

test("fixed strings of what is shown, and of copies of it, stay fixed ones", () => {
    const page = new Page<any>({
        cards: { a: { kind: new ImmutableString("todo"), tags: [new ImmutableString("x")] } },
    })
    const { a } = page.doc.cards
    page.change((d) => {
        insertInOrder(d.cards, "b", a)
        insertInOrder(d.cards, "c", snapshot(a))
        insertInOrder(d.cards, "d", d.cards.a)
        insertInOrder(d.cards, "e", { kind: new ImmutableString("todo"), tags: [], order: "" })
    })
    assert.deepEqual(ids(page.doc), ["a", "b", "c", "d", "e"])
    for (const id of ids(page.doc)) {
        page.refuses((d) => splice(d, ["cards", id, "kind"], 0, 0, "x"), /is fixed/)
        if (id !== "e") page.refuses((d) => splice(d, ["cards", id, "tags", 0], 0, 0, "x"), /is fixed/)
    }
})

test("what others wrote at one place can be parted", () => {
    const page = new Page<any>({ cards: {} })
    page.change((d) => {
        for (const [id, order] of [
            ["first", "a0"],
            ["last", "a1"],
            ["a", "a0V"],
            ["b", "a0V"],
        ] as const)
            d.cards[id] = { order: new ImmutableString(order) }
    })
    assert.deepEqual(ids(page.doc), ["first", "a", "b", "last"])
    page.change((d) => moveInOrder(d.cards, "last", 2))
    assert.deepEqual(ids(page.doc), ["first", "a", "last", "b"])
    page.change((d) => insertInOrder(d.cards, "new", {}, 2))
    assert.deepEqual(ids(page.doc), ["first", "a", "new", "last", "b"])
})

test("items that others put there without a place, or with one of no use, come last until they are moved", () => {
    const page = new Page<any>({ cards: {} })
    page.change((d) => {
        insertInOrder(d.cards, "x", { order: "zzz" })
        d.cards.b = { title: "b" }
        d.cards.a = { order: "!" }
        d.cards.c = { order: "a00" }
        d.cards.d = { order: 7 }
        d.cards.e = null
    })
    assert.deepEqual(ids(page.doc), ["x", "a", "b", "c", "d", "e"])
    assert.match(page.doc.cards.x.order, /^a0...$/)
    page.change((d) => {
        delete d.cards.e
        moveInOrder(d.cards, "x", 3)
    })
    assert.deepEqual(ids(page.doc), ["a", "b", "c", "x", "d"])
    page.change((d) => moveInOrder(d.cards, "d", 0))
    assert.deepEqual(ids(page.doc), ["d", "a", "b", "c", "x"])
    page.refuses((d) => moveInOrder(d.cards, "none", 0), /no item none/)
    for (const index of [NaN, -1, -Infinity, undefined, "1", {}, null] as number[]) {
        page.refuses((d) => moveInOrder(d.cards, "a", index), /RangeError: an index/)
        if (index !== undefined) page.refuses((d) => insertInOrder(d.cards, "new", {}, index), /RangeError: an index/)
    }
    page.refuses((d) => insertInOrder(d.cards, "a", {}), /RangeError: there is an item a/)
    page.change((d) => insertInOrder(d.cards, "constructor", {}))
    for (const map of [undefined, null, "text"] as never[]) {
        page.refuses(() => insertInOrder(map, "a", {}), /TypeError: items are put in order in a map/)
        page.refuses(() => moveInOrder(map, "a", 0), /TypeError: items are put in order in a map/)
    }
    assert.deepEqual(inOrder(undefined), [])
})

test("nobody is kept from moving by a place at the very end", () => {
    for (const order of [`z${"z".repeat(26)}`, `A${"0".repeat(26)}`, `A${"0".repeat(26)}1`, `z${"z".repeat(26)}z`]) {
        const page = new Page<any>({ cards: { hers: { order: new ImmutableString(order) } } })
        for (const [step, at] of [1, 0, 1, 2].entries()) {
            page.change((d) => insertInOrder(d.cards, `${step}`, {}, at))
            page.change((d) => moveInOrder(d.cards, "hers", at))
            assert.equal(ids(page.doc).length, Object.keys(page.doc.cards).length)
        }
    }
})

test("long lists have short places", () => {
    const page = new Page<any>({ cards: {} })
    page.change((d) => {
        for (let n = 0; n < 300; n++) insertInOrder(d.cards, `${n}`, {})
        for (let n = 0; n < 300; n++) moveInOrder(d.cards, `${n}`, 0)
        for (let n = 0; n < 60; n++) moveInOrder(d.cards, `${n}`, 1)
    })
    const longest = Math.max(...inOrder<any>(page.doc.cards).map(([, { order }]) => order.length))
    assert.ok(longest <= 30, `${longest} characters`)
})
