/** Drafts that are updated as if they were immutable: by arrays and objects in the place of others. */

import assert from "node:assert/strict"
import { test } from "node:test"
import { Counter, ImmutableString } from "../js/counter.js"
import { snapshot } from "../js/draft.js"
import type { Node } from "../js/tree.js"
import { Page } from "./page.js"
import { type Random, random } from "./random.js"
import { Replica } from "./replica.js"

const RUNS = Number(process.env["RECONVERGE_RUNS"] ?? 3000)

interface Item {
    id: number
    title: string
    done?: boolean
    tags: string[]
    owner: { name: string }
}

const item = (id: number): Item => ({ id, title: `t${id}`, tags: ["a", "b"], owner: { name: `o${id}` } })

function board(): Page<any> {
    return new Page<any>({
        items: [1, 2, 3, 4].map(item),
        tags: ["x", "y", "z"],
        settings: { dark: false, n: { k: 1 } },
    })
}

/** The names of the objects in a list. */
const names = (page: Page<any>, key = "items"): string[] =>
    (page.tree.at([key]) as Node & { items: Node[] }).items.map(({ id }) => id)

const itemsOf = (replica: Replica): string[] =>
    (replica.tree.at(["items"]) as Node & { items: Node[] }).items.map(({ id }) => id)

/** The update does to the document what it does to a plain object. */
function updates(page: Page<any>, fn: (draft: any) => void): unknown[] {
    const plain: any = structuredClone(page.doc)
    fn(plain)
    const operations = page.change(fn)
    assert.deepEqual(page.doc, plain)
    return operations
}

test("a list that is filtered, extended or mapped keeps what stays", () => {
    const page = board()
    const [one, two, three, four] = names(page)
    assert.equal(updates(page, (d) => (d.items = d.items.filter((i: Item) => i.id !== 2))).length, 1)
    assert.deepEqual(names(page), [one, three, four])
    updates(page, (d) => (d.items = [...d.items, item(5)]))
    assert.deepEqual(names(page).slice(0, 3), [one, three, four])
    updates(page, (d) => (d.items = d.items.map((i: Item) => (i.id === 3 ? { ...i, done: true, title: "new" } : i))))
    updates(page, (d) => (d.items = d.items.map((i: Item) => ({ ...i, tags: [...i.tags, "c"] }))))
    updates(page, (d) => (d.items = d.items.map(({ done, ...rest }: Item) => rest)))
    assert.deepEqual(names(page).slice(0, 3), [one, three, four])
    updates(page, (d) => (d.items = []))
    assert.ok(two)
    assert.equal((page.tree.at(["items"]) as Node).id, (page.other.at(["items"]) as Node).id)
})

test("rows that are assigned anew are edited, also if there are more or fewer of them", () => {
    const fresh = (): Page<any> => new Page<any>({ grid: [[1, 2], ["a", "b"], [], [5, 6]] })
    const rows: [(grid: any[][]) => any[][], kept: (number | undefined)[]][] = [
        [(g) => [...g.map((row) => [...row, 0]), [9, 9]], [0, 1, undefined, undefined, undefined]],
        [(g) => [[9, 9], ...g.map((row) => [0, ...row])], [undefined, undefined, undefined, undefined, 3]],
        [(g) => g.filter((_, i) => i !== 1).map((row) => row.slice(0, 1)), [0, 2, 3]],
        [(g) => g.map((row) => row.concat(row)).slice(1), [1, 2, 3]],
        [(g) => g.map((row) => row.map((x) => `${x}`)), [0, 1, 2, 3]],
        [(g) => g.flatMap((row) => [row, [...row]]), [0, undefined, 1, undefined, 2, undefined, 3, undefined]],
        [() => [], []],
    ]
    for (const [update, kept] of rows) {
        const page = fresh()
        const before = names(page, "grid")
        updates(page, (d) => (d.grid = update(d.grid)))
        const after = names(page, "grid").map((id) => (before.includes(id) ? before.indexOf(id) : undefined))
        assert.deepEqual(after, kept, String(update))
    }
})

test("what moves within a list is moved, and its neighbours stay", () => {
    const page = board()
    const [one, two, three, four] = names(page)
    assert.equal(
        updates(page, (d) => (d.items = [d.items[3], d.items[0], d.items[1], d.items[2]])).at(-1) !== undefined,
        true,
    )
    assert.deepEqual(names(page).slice(1), [one, two, three])
    assert.notEqual(names(page)[0], four)
    updates(page, (d) => ([d.items[0], d.items[2]] = [d.items[2], d.items[0]]))
    assert.equal(names(page)[1], one)
    updates(page, (d) => d.items.sort((a: Item, b: Item) => a.id - b.id))
    updates(page, (d) => d.items.reverse())
    updates(page, (d) => d.tags.sort((a: string, b: string) => (a < b ? 1 : -1)))
    updates(page, (d) => d.tags.copyWithin(0, 1))
    updates(page, (d) => d.items.copyWithin(1, 0, 2))
    page.change((d) => {
        const last = d.items.at(-1)
        d.items.reverse()
        last.title = "was last"
        assert.equal(d.items[0], last)
    })
    assert.equal(page.doc.items[0].title, "was last")
    // And so do those within it.
    page.change((d) => {
        const { owner, tags } = d.items[0]
        d.items.push(d.items.shift())
        owner.name = "moved"
        tags.push("moved")
        assert.equal(d.items.at(-1).owner, owner)
    })
    assert.equal(page.doc.items.at(-1).owner.name, "moved")
    assert.equal(page.doc.items.at(-1).tags.at(-1), "moved")
})

test("an object that is spread and put back is edited", () => {
    const page = board()
    assert.deepEqual(
        updates(page, (d) => (d.settings = { ...d.settings, size: 3 })).map(([kind, , key]: any) => [kind, key]),
        [["put", "size"]],
    )
    updates(page, (d) => (d.settings = { ...d.settings, n: { ...d.settings.n, k: 2 } }))
    updates(page, (d) => {
        const { dark, ...rest } = d.settings
        d.settings = rest
    })
    assert.equal(updates(page, (d) => (d.settings = { ...d.settings })).length, 0)
    const id = (page.tree.at(["settings"]) as Node).id
    // Also if nothing is left, and when another is spread into it.
    updates(page, (d) => {
        const { n, ...rest } = d.settings
        const { size, ...none } = rest
        d.settings = { ...none, n, size }
    })
    updates(page, (d) => {
        const { n, size, ...rest } = d.settings
        d.settings = rest
    })
    assert.equal((page.tree.at(["settings"]) as Node).id, id)
    updates(page, (d) => (d.settings = { ...d.settings, ...d.items[0] }))
    updates(page, (d) => (d.settings = { ...d.items[1], ...d.settings, ...d.items[2] }))
    assert.equal((page.tree.at(["settings"]) as Node).id, id)
    const [first] = names(page)
    updates(page, (d) => (d.items = d.items.map((i: Item) => ({ ...i, ...d.settings }))))
    assert.equal(names(page)[0], first)
    // Another object is another one.
    const settings = (page.tree.at(["settings"]) as Node).id
    updates(page, (d) => (d.settings = { size: 3 }))
    assert.notEqual((page.tree.at(["settings"]) as Node).id, settings)
    // An empty one is filled.
    page.change((d) => (d.empty = {}))
    const empty = (page.tree.at(["empty"]) as Node).id
    updates(page, (d) => (d.empty = { ...d.empty, k: 1 }))
    assert.equal((page.tree.at(["empty"]) as Node).id, empty)
})

test("a part of a draft is copied wherever it is stored a second time", () => {
    const page = board()
    updates(page, (d) => d.items.push({ ...d.items[0], id: 9 }))
    updates(page, (d) => (d.first = d.items[0]))
    updates(page, (d) => (d.all = [...d.items, ...d.items]))
    updates(page, (d) => (d.items = [...d.items, { ...d.items[0], id: 10 }]))
    updates(page, (d) => (d.nested = { settings: { ...d.settings }, list: [d.settings, [d.settings.n]] }))
    updates(page, (d) => (d.items = d.items.flatMap((i: Item) => [i, { ...i, id: i.id + 100 }])))
    page.change((d) => {
        const copy: any = snapshot(d.settings)
        assert.deepEqual(structuredClone(copy), { dark: false, n: { k: 1 } })
        copy.n.k = 5
        d.copy = copy
        assert.equal(d.settings.n.k, 1)
    })
    assert.deepEqual(page.doc.copy, { dark: false, n: { k: 5 } })
    const shown = snapshot(page.doc.settings) as any
    shown.n.k = 7
    assert.equal(page.doc.settings.n.k, 1)
})

test("a draft compares as a plain object does", () => {
    const page = board()
    page.change((d) => {
        assert.deepEqual(
            Object.getOwnPropertySymbols(d.settings).filter((s) =>
                Object.prototype.propertyIsEnumerable.call(d.settings, s),
            ),
            [],
        )
        for (let i = 0; i < 2; i++) assert.deepEqual(d.settings, { dark: false, n: { k: 1 } })
        assert.deepEqual(Object.keys({ ...d.settings }), ["dark", "n"])
        assert.equal(JSON.stringify({ ...d.settings }), `{"dark":false,"n":{"k":1}}`)
        Object.assign(d.settings, { ...d.settings })
    })
})

test("undefined is left out of an object, and removes a key", () => {
    const page = board()
    page.change((d) => {
        d.items.push({ ...item(7), done: undefined })
        d.settings.dark = undefined
        d.gone = undefined
    })
    assert.deepEqual(page.doc.items.at(-1), item(7))
    assert.deepEqual(page.doc.settings, { n: { k: 1 } })
    assert.ok(!("gone" in page.doc))
})

test("numbers that are not finite are stored, and are no edit where they are", () => {
    const page = new Page<any>({ points: [NaN, Infinity, 1], low: -Infinity })
    assert.deepEqual(page.doc, { points: [NaN, Infinity, 1], low: -Infinity })
    const none = page.change((d) => {
        d.low = -Infinity
        d.points[0] = NaN
        d.points = [...d.points]
    })
    assert.deepEqual(none, [])
    updates(page, (d) => (d.points = d.points.filter((p: number) => !Number.isNaN(p))))
})

test("fixed strings stay fixed where they are, in copies, and in parts that were shown", () => {
    const col = (): unknown => page.tree.at(["cards", 0, "col"])
    const page = new Page<any>({
        cards: [{ col: new ImmutableString("todo"), title: "t", ids: [new ImmutableString("a"), "b"] }],
    })
    page.change((d) => (d.cards[0].col = "done"))
    assert.equal(col(), "done")
    page.change((d) => (d.cards = d.cards.map((c: any) => ({ ...c, col: "late" }))))
    assert.equal(col(), "late")
    page.change((d) => {
        d.copies = [{ ...d.cards[0] }, d.cards[0], page.doc.cards[0], snapshot(d.cards[0]), snapshot(page.doc.cards[0])]
    })
    for (const index of page.doc.copies.keys()) {
        assert.equal(page.tree.at(["copies", index, "col"]), "late", `${index}`)
        assert.equal(page.tree.at(["copies", index, "ids", 0]), "a", `${index}`)
        assert.equal((page.tree.at(["copies", index, "ids", 1]) as Node).kind, "text")
        assert.equal((page.tree.at(["copies", index, "title"]) as Node).kind, "text")
    }
    page.change((d) => d.cards[0].ids.reverse())
    assert.equal(page.tree.at(["cards", 0, "ids", 1]), "a")
    // From a text to a fixed string, if it is asked for.
    page.change((d) => (d.cards[0].ids = d.cards[0].ids.map((id: string) => new ImmutableString(id))))
    assert.equal(page.tree.at(["cards", 0, "ids", 0]), "b")
})

test("an update that fails on its way did nothing, also if the caller goes on", () => {
    const page = board()
    const before = page.doc
    page.change((d) => {
        assert.throws(() => (d.items = [d.items[1], { ...d.items[0], bad: () => {} }, ...d.items]), /function/)
        assert.throws(() => (d.settings = { ...d.settings, dark: true, n: Symbol() }), /symbol/)
        assert.deepEqual(snapshot(d), before)
        d.items[1].title = "goes on"
    })
    assert.equal(page.doc.items[1].title, "goes on")
    assert.equal(page.doc.items.length, 4)
})

test("counters, dates and bytes keep their values when a list is rearranged", () => {
    const page = new Page<any>({ l: [new Counter(1), new Date(5), new Uint8Array([1, 2]), 3n ** 39n, null, true, 1.5] })
    const before = page.doc.l
    assert.deepEqual(
        page.change((d) => (d.l = [...d.l])),
        [],
    )
    page.change((d) => d.l.reverse())
    assert.deepEqual(page.doc.l, [...before].reverse())
    page.change((d) => {
        d.l.at(-1).increment(2)
        d.l = d.l.slice(3)
    })
    assert.equal(page.doc.l.at(-1).value, 3)
})

test("what was held goes on to show what there was when its place is assigned", () => {
    const fresh = (): Page<any> =>
        new Page<any>({
            tasks: [
                { t: 1, done: true },
                { t: 2, done: false },
            ],
            q: ["a", "b", "c"],
            left: [1],
            right: [3],
            doc: { v: 1, deep: { k: 1 } },
            versions: [],
            s: { doc: { v: 1 }, versions: [], v: 1 },
            l: [0, 5],
            objects: [{ v: 1 }, { v: 2 }, { v: 3 }],
            n: 0,
        })
    const cases: ((d: any) => void)[] = [
        (d) => {
            const { tasks } = d
            d.tasks = tasks.filter((t: any) => !t.done)
            d.archive = tasks.filter((t: any) => t.done)
        },
        (d) => {
            const q = d.q
            d.q = []
            d.moved = [...q]
        },
        (d) => {
            const q = d.q
            d.q = q.slice(2)
            d.cur = q.slice(0, 2)
            d.n += q.length - d.q.length
        },
        (d) => {
            const { left, right } = d
            d.left = [...right]
            d.right = [...left]
        },
        (d) => {
            const prev = d.doc
            d.doc = { ...prev, v: 2 }
            d.versions = [...d.versions, prev]
            d.doc.deep.k = 2
        },
        (d) => {
            d.doc = { ...d.doc, a: 1 }
            d.doc = { ...d.doc, b: 2 }
        },
        (d) => (d.s = { ...d.s, doc: { ...d.s.doc, v: 2 }, versions: [...d.s.versions, d.s.doc] }),
        (d) => (d.s = { ...d.s, v: 2, prev: d.s }),
        (d) => (d.l = [1, d.l]),
        (d) =>
            (d.objects = d.objects.map((x: any, i: number) => ({
                ...x,
                v: x.v * 10,
                before: d.objects[i - 1] ?? null,
            }))),
        (d) => {
            const first = d.objects[0]
            d.objects = d.objects.map((x: any) => ({ ...x, v: 0 }))
            d.was = first.v
        },
        (d) => {
            const { objects, doc } = d
            d.objects = objects.map((x: any) => ({ ...x, v: x.v * 10 }))
            d.n = objects[2].v
            d.objects = d.objects.map((x: any) => ({ ...x, v: x.v * 10 }))
            d.doc = { ...doc, deep: { ...doc.deep, k: 2 } }
            d.was = [objects[0].v, doc.deep.k, objects.length]
            d.objects[1].v = 0
            d.left = objects
            objects[1].v = 7
        },
    ]
    for (const [index, fn] of cases.entries()) {
        // Parts that stayed are one in plain JavaScript, and copies here.
        const page = fresh()
        const plain: any = structuredClone(page.doc)
        fn(plain)
        page.change(fn)
        if (index === 4) assert.equal(page.doc.versions[0].deep.k, 1)
        const shown = JSON.parse(JSON.stringify(page.doc))
        const expected = JSON.parse(JSON.stringify(plain))
        if (index === 4) expected.versions[0].deep.k = 1
        assert.deepEqual(shown, expected, `case ${index}`)
    }
    // It is plain data by now.
    const page = fresh()
    page.change((d) => {
        const { q } = d
        d.q = ["x"]
        q.push("d")
        assert.deepEqual(d.q, ["x"])
        d.was = q
        q.push("e")
    })
    assert.deepEqual([page.doc.q, page.doc.was], [["x"], ["a", "b", "c", "d", "e"]])
})

test("what is stored and changed afterwards is an error, as it would be lost", () => {
    const page = board()
    const expected = /stored, and changed afterwards/
    page.refuses((d) => (d.groups ??= []).push("lost"), expected)
    page.refuses((d) => {
        const row: any = { cells: [] }
        d.row = row
        row.cells.push(1)
    }, expected)
    page.refuses((d) => {
        const tags = ["a"]
        d.tags = tags
        tags.push("b")
    }, expected)
    page.refuses((d: any) => ({ ...d, title: "x" }), /nothing was changed: edit the draft/)
})

test("a list has no holes", () => {
    const page = board()
    for (const holes of [[1, , 3], Array(3), ["x"].concat([, "y"] as string[])]) {
        page.refuses((d) => (d.tags = holes), /cannot store undefined at \/tags/)
        page.refuses((d) => (d.more = holes), /cannot store undefined at \/more/)
    }
})

test("after an update that failed, drafts are what they were", () => {
    const page = board()
    page.change((d) => {
        const [, one, two] = d.items
        assert.throws(() => (d.items = [two, d.items[0], { ...one, bad: () => {} }]), /function/)
        assert.throws(() => (d.settings = { ...d.settings, bad: () => {} }), /function/)
        assert.equal(two.id, 3)
        assert.equal(d.items[2], two)
        two.title = "goes on"
        d.settings.dark = true
        // What was to move stays where it is, also when a copy of it is stored.
        d.copy = two
        two.done = true
    })
    assert.equal(page.doc.items[2].title, "goes on")
    assert.deepEqual([page.doc.items[2].done, page.doc.copy.done], [true, undefined])
})

test("a counter that is spread is the same, and a list of fixed strings stays one", () => {
    const page = new Page<any>({ s: { n: new Counter(3) }, ids: [new ImmutableString("a"), new ImmutableString("b")] })
    assert.deepEqual(
        page.change((d) => (d.s = { ...d.s })),
        [],
    )
    page.change((d) => {
        d.ids = d.ids.map((id: string) => `${id}!`).concat("z")
        d.ids.push("y")
    })
    assert.deepEqual((page.tree.at(["ids"]) as any).items, ["a!", "b!", "z", "y"])
})

test("of two who replace an element by another, both get theirs", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.change((d) => Object.assign(d, { items: [1, 2].map(item), tags: ["x", "y"], numbers: [1, 2] }))
    other.merge(one)
    const replace = (replica: Replica, id: number): void =>
        replica.change((d) => {
            d.items = [...d.items.filter((i: Item) => i.id !== 2), item(id)]
            d.tags = [...d.tags.slice(0, 1), `${id}`]
            d.numbers = d.numbers.map((n: number) => n * 10)
        })
    replace(one, 5)
    replace(other, 6)
    one.merge(other)
    const shown = one.tree.view() as any
    assert.deepEqual(shown.items.map(({ id }: Item) => id).sort(), [1, 5, 6])
    assert.deepEqual([...shown.tags].sort(), ["5", "6", "x"])
    assert.deepEqual(shown.numbers, [10, 20], "what both did to the same is not doubled")
    one.host.close()
    other.host.close()
})

/** An update in the immutable style, that can be made of a plain document too. */
function randomUpdate(random: Random, ids: () => number): (d: any) => void {
    const [at, other, keep] = [random.below(6), random.below(6), random.below(64)]
    const id = ids()
    const pick = (list: unknown[], n: number): number => (list.length === 0 ? 0 : n % list.length)
    switch (random.below(18)) {
        case 0:
            return (d) => (d.items = d.items.filter((_: Item, i: number) => (keep >> i) & 1))
        case 1:
            return (d) => (d.items = [...d.items.slice(0, at), item(id), ...d.items.slice(at)])
        case 2:
            return (d) => (d.items = d.items.map((i: Item, n: number) => (n === at ? { ...i, title: `u${id}` } : i)))
        case 3:
            return (d) =>
                (d.items = d.items
                    .map((i: Item) => ({ ...i, done: !i.done }))
                    .filter((_: Item, n: number) => (keep >> n) & 1))
        case 4:
            return (d) => {
                const [one, two] = [pick(d.items, at), pick(d.items, other)]
                if (d.items.length > 0) [d.items[one], d.items[two]] = [d.items[two], d.items[one]]
            }
        case 5:
            return (d) => d.items.sort((a: Item, b: Item) => ((a.id * keep) % 7) - ((b.id * keep) % 7) || a.id - b.id)
        case 6:
            return (d) => d.items.reverse()
        case 7:
            return (d) => {
                const [moved] = d.items.splice(at, 1)
                if (moved) d.items.splice(other, 0, moved)
            }
        case 8:
            return (d) => (d.tags = d.tags.filter((_: string, i: number) => (keep >> i) & 1).concat(`g${id % 5}`))
        case 9:
            return (d) => (d.tags = [...d.tags, "x"].reverse().slice(0, 6))
        case 10:
            return (d) => (d.settings = { ...d.settings, [`k${at}`]: id, n: { ...d.settings.n, deep: [id, other] } })
        case 11:
            return (d) => {
                const { [`k${at}`]: _, ...rest } = d.settings
                d.settings = rest
            }
        case 12:
            return (d) =>
                (d.items = d.items.map((i: Item) => ({
                    ...i,
                    tags: i.tags.filter((_, n) => (keep >> n) & 1).concat("n"),
                    owner: { ...i.owner, id },
                })))
        case 13:
            return (d) => {
                const [x] = d.items.splice(at, 1)
                if (!x) return
                x.done = !x.done
                // Other items may have the same in plain JavaScript.
                x.tags = [...x.tags, "out"].slice(-4)
                d.items.splice(other, 0, x)
                x.title = `m${id}`
                x.owner = { ...x.owner, out: id }
            }
        case 14:
            return (d) => {
                const { items } = d
                d.items = items.filter((_: Item, i: number) => (keep >> i) & 1)
                items.forEach((i: Item) => (i.title = `all ${id}`))
                const gone = items.filter((i: Item) => !d.items.includes(i))
                d.tags = [...d.tags, ...gone.map((i: Item) => i.title)].slice(-6)
                if (gone.length > 0) d.items.push(gone[0])
            }
        case 15:
            return (d) => {
                const { items } = d
                d.items = items.map((i: Item, n: number) => (n === at ? { ...i, title: `u${id}` } : i))
                d.tags = items.map((i: Item) => i.title).slice(0, 6)
            }
        case 16:
            return (d) => (d.settings = { ...d.items[at], ...d.settings, ...d.items[other] })
        default:
            return (d) =>
                (d.items = [...d.items].concat(d.items.slice(at, at + 1).map((i: Item) => ({ ...i, id }))).slice(0, 8))
    }
}

test("thousands of random updates do to a document what they do to plain JavaScript", (t) => {
    const r = random()
    t.diagnostic(`RECONVERGE_SEED=${r.seed}`)
    let [page, next] = [board(), 100]
    for (let run = 0; run < RUNS; run++) {
        if (run % 50 === 0) page = board()
        const several = Array.from({ length: 1 + r.below(3) }, () => randomUpdate(r, () => ++next))
        updates(page, (d) => several.forEach((update) => update(d)))
    }
})

test("what stays in a random update is still there for those who edit it at the same time", (t) => {
    const r = random()
    t.diagnostic(`RECONVERGE_SEED=${r.seed}`)
    let [next, kept] = [100, 0]
    for (let run = 0; run < RUNS / 60; run++) {
        const [one, other] = [new Replica(1), new Replica(2)]
        one.change((d) => Object.assign(d, board().doc))
        other.merge(one)
        const [before, shown] = [itemsOf(one), other.tree.view() as any]
        one.change((d) => randomUpdate(r, () => ++next)(d))
        const stayed = itemsOf(one).filter((id) => before.includes(id))
        other.change((d) => d.items.forEach((i: Item) => (i.owner.name = `other's ${i.id}`)))
        other.change((d) => d.items.push(item(1000 + run)))
        one.merge(other)
        other.merge(one)
        assert.deepEqual(other.tree.view(), one.tree.view())
        const now = one.tree.view() as any
        for (const id of stayed) {
            const was = shown.items[before.indexOf(id)] as Item
            const is = now.items[itemsOf(one).indexOf(id)]
            assert.equal(is.owner.name, `other's ${was.id}`)
            kept++
        }
        assert.ok(
            now.items.some(({ id }: Item) => id === 1000 + run),
            "the list itself stayed",
        )
        one.host.close()
        other.host.close()
    }
    assert.ok(kept > RUNS / 60)
})
