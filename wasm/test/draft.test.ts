import assert from "node:assert/strict"
import { test } from "node:test"
import { runInNewContext } from "node:vm"
import { Counter, ImmutableString } from "../js/counter.js"
import * as next from "../js/draft.js"
import type { Draft } from "../js/draft.js"
import { Page } from "./page.js"

test("a map of a draft feels like a plain object", () => {
    const page = new Page({ a: 1, nested: { b: true } })
    page.change((draft) => {
        assert.equal(draft["a"], 1)
        assert.equal(draft["missing"], undefined)
        assert.ok("a" in draft && !("missing" in draft))
        assert.ok(Object.hasOwn(draft, "a") && draft.hasOwnProperty("a"))
        assert.deepEqual(Object.keys(draft), ["a", "nested"])
        assert.deepEqual(Object.entries(draft["nested"]), [["b", true]])
        assert.equal(JSON.stringify(draft), `{"a":1,"nested":{"b":true}}`)
        assert.deepEqual(Object.entries({ ...draft["nested"] }), [["b", true]])
        assert.deepEqual(draft["nested"], { b: true })
        assert.equal(draft["nested"], draft["nested"])
        assert.equal(`${draft["nested"]}`, "[object Object]")

        draft["a"] = 2
        delete draft["nested"].b
        delete draft["missing"]
        draft["nested"].c = { d: [] }
        draft["nested"].c.d.push("x")
        assert.equal(draft["a"], 2)
        assert.ok(!("b" in draft["nested"]))
        assert.equal(draft["nested"].c.d[0], "x")
        const seen: string[] = []
        for (const key in draft) seen.push(key)
        assert.deepEqual(seen, ["a", "nested"])
        assert.throws(() => Object.defineProperty(draft, "z", { value: 1 }), TypeError)
        assert.throws(() => Object.freeze(draft), TypeError)
        assert.throws(() => Object.setPrototypeOf(draft, {}), TypeError)
    })
    assert.deepEqual(page.doc, { a: 2, nested: { c: { d: ["x"] } } })
})

test("values of another realm are what they are in it", () => {
    const page = new Page<any>({})
    const other = runInNewContext(`({ date: new Date(5), bytes: new Uint8Array([1, 2]), list: [{ a: [null] }] })`)
    assert.ok(!(other.date instanceof Date))
    page.change((draft) => Object.assign(draft, other))
    assert.deepEqual(page.doc, { date: new Date(5), bytes: new Uint8Array([1, 2]), list: [{ a: [null] }] })
    assert.ok(page.doc.date instanceof Date && page.doc.bytes instanceof Uint8Array)
    page.refuses((draft) => (draft.date = runInNewContext("new Date(NaN)")), /an invalid date at \/date/)
    page.refuses((draft) => (draft.map = runInNewContext("new Map()")), /an instance of Map at \/map/)
    page.refuses((draft) => (draft.bytes = runInNewContext("new Uint16Array(1)")), /instance of Uint16Array at \/bytes/)
})

test("all keys that Automerge allows work, also those that Object has", () => {
    const page = new Page()
    page.change((draft) => Object.assign(draft, { "": 1, constructor: 2, toString: 3, "0": 4 }))
    assert.deepEqual(Object.entries(page.doc).sort(), [
        ["", 1],
        ["0", 4],
        ["constructor", 2],
        ["toString", 3],
    ])
    page.change((draft) => assert.equal(draft["constructor"], 2))
    page.refuses((draft) => (draft["__proto__"] = 1), /__proto__ as a key, at \/__proto__/)
    page.refuses((draft) => (draft["a"] = JSON.parse(`{"__proto__": {}}`)), /__proto__ as a key, at \/a\/__proto__/)
    page.refuses((draft) => Reflect.set(draft, Symbol("s"), 1), /symbol as a key/)
})

test("a list of a draft feels like a plain array", () => {
    const page = new Page<{ list: any[] }>({ list: [1, 2, 3, { id: "x" }] })
    page.change(({ list }) => {
        assert.ok(Array.isArray(list))
        assert.equal(list.length, 4)
        assert.equal(list.at(-2), 3)
        assert.equal(list[4], undefined)
        assert.ok(0 in list && !(4 in list) && "map" in list && "insertAt" in list)
        assert.deepEqual(Object.keys(list), ["0", "1", "2", "3"])
        assert.deepEqual(
            [...list.entries()].map(([i]) => i),
            [0, 1, 2, 3],
        )
        assert.deepEqual(list.slice(0, 2), [1, 2])
        assert.deepEqual(
            list.slice(0, 3).map((n) => n * 2),
            [2, 4, 6],
        )
        assert.deepEqual(
            list.filter((n) => n > 1),
            [2, 3],
        )
        assert.deepEqual([0].concat(list.slice(0, 1)), [0, 1])
        assert.deepEqual([...list.slice(0, 3)], [1, 2, 3])
        assert.equal(list.slice(0, 3).join("-"), "1-2-3")
        assert.equal(
            list.find((n) => n === 2),
            2,
        )
        assert.equal(list.indexOf(list[3]), 3)
        assert.ok(list.includes(list[3]) && list.includes(3) && !list.includes({ id: "x" }))
        assert.equal(list.lastIndexOf(3), 2)
        assert.equal(
            list.reduce((sum, n) => (typeof n === "number" ? sum + n : sum), 0),
            6,
        )
        assert.equal(JSON.stringify(list), `[1,2,3,{"id":"x"}]`)
        assert.equal(Object.getOwnPropertyDescriptor(list, "length")?.value, 4)
    })
    page.change(({ list }) => {
        list[0] = 10
        list[4] = 5
        assert.equal(list.push(6, 7), 7)
        assert.equal(list.unshift(0), 8)
        assert.deepEqual([...list], [0, 10, 2, 3, list[4], 5, 6, 7])
        assert.equal(list.pop(), 7)
        assert.equal(list.shift(), 0)
        assert.deepEqual(list.splice(1, 2, "a", "b", "c"), [2, 3])
        assert.deepEqual(list.splice(-1), [6])
        assert.deepEqual(list.splice(0, -1), [])
        assert.deepEqual((list as any).splice(), [])
        assert.deepEqual((list as any).splice(undefined, undefined), [])
        next.insertAt(list, 1, true, false)
        next.deleteAt(list, 0)
        ;(list as any).insertAt(0, null).deleteAt(1, 2)
    })
    assert.deepEqual(page.doc.list, [null, "a", "b", "c", { id: "x" }, 5])
    page.change(({ list }) => {
        list.length = 3
        delete list[0]
        assert.deepEqual([...list], ["a", "b"])
        list.fill({ filled: true }, -1)
    })
    assert.deepEqual(page.doc.list, ["a", { filled: true }])
    page.change(({ list }) => (list.length = 0))
    page.change(({ list }) => assert.equal(list.pop() ?? list.shift(), undefined))
    assert.deepEqual(page.doc.list, [])
})

test("what a list cannot do says so", () => {
    const page = new Page<{ l: any[] }>({ l: [1, 2] })
    page.refuses((d) => (d.l[3] = 1), /there is no index 3 at \/l: it must be from 0 to 2/)
    page.refuses((d) => (d.l.length = 3), /there is no index 3 at \/l/)
    page.refuses((d) => ((d.l as any).name = 3), /cannot set name of the list at \/l/)
    page.refuses((d) => ((d.l as any)[-1] = 3), /cannot set -1 of the list at \/l/)
    page.refuses((d) => next.insertAt(d.l, -1, 0), /there is no index -1 at \/l/)
    page.refuses((d) => next.deleteAt(d.l, 1, 2), /there is no index 3 at \/l/)
    page.refuses((d) => next.deleteAt(d.l, 0, -1), /cannot delete -1 elements at \/l/)
})

test("values are stored as copies of their kind", () => {
    const date = new Date(5)
    const bytes = new Uint8Array([1, 2])
    const data = { deep: [{}] }
    const page = new Page<any>({
        date,
        bytes,
        data,
        counter: new Counter(3),
        fixed: new ImmutableString("f"),
        nothing: null,
    })
    date.setTime(0)
    bytes[0] = 0
    data.deep.push({})
    const expected: any = {
        date: new Date(5),
        bytes: new Uint8Array([1, 2]),
        data: { deep: [{}] },
        counter: new Counter(3),
        fixed: "f",
        nothing: null,
    }
    assert.deepEqual(page.doc, expected)
    // Nobody would see that they were changed in place.
    const inPlace = /a date or bytes were changed in place/
    page.refuses((draft) => draft["date"].setTime(9), inPlace)
    page.refuses((draft) => (draft["bytes"][0] = 9), inPlace)
    page.refuses((draft) => {
        draft["other"] = date
        date.setTime(9)
    }, inPlace)
    page.change((draft) => {
        const [later, more] = [draft["date"], draft["bytes"]]
        later.setTime(9)
        more[0] = 9
        Object.assign(draft, { date: later, bytes: more })
    })
    assert.deepEqual(page.doc, { ...expected, date: new Date(9), bytes: new Uint8Array([9, 2]) })
    page.change((draft) => {
        draft["big"] = 2n ** 63n - 1n
        draft["small"] = 5n
        draft["zero"] = -0
    })
    assert.deepEqual([page.doc["big"], page.doc["small"], Object.is(page.doc["zero"], 0)], [2n ** 63n - 1n, 5, true])
    page.change((draft) => (draft["text"] = "a\ud800b"))
    assert.equal(page.doc["text"], "a\ufffdb")
})

test("what cannot be stored is named, with its path, and nothing of it is stored", () => {
    const page = new Page<any>({ todos: [{}, {}], "a/b": {}, m: { x: {} } })
    const refuses = (value: unknown, expected: RegExp): void =>
        page.refuses((d) => (d.todos[1].title = value), expected)
    refuses({ a: [1, undefined] }, /^TypeError: cannot store undefined at \/todos\/1\/title\/a\/1: a list has no holes/)
    refuses([, 1], /cannot store undefined at \/todos\/1\/title\/0/)
    refuses(() => {}, /cannot store a function at \/todos\/1\/title: a document holds data only/)
    refuses(Symbol(), /cannot store a symbol at/)
    refuses(2n ** 64n, /cannot store 18446744073709551616 at .*: an integer has at most 64 bits/)
    refuses(new Map(), /cannot store an instance of Map at .*: only plain objects/)
    refuses(new (class Point {})(), /cannot store an instance of Point at/)
    refuses(new Date(NaN), /cannot store an invalid date at \/todos\/1\/title$/)
    refuses(new Counter(1.5), /cannot store 1.5 at .*: a counter counts whole numbers/)
    refuses(Promise.resolve(), /instance of Promise/)
    const cycle: any = { inner: [] }
    cycle.inner.push(cycle)
    refuses(cycle, /cannot store an object that contains itself at \/todos\/1\/title\/inner\/0$/)
    page.refuses((d) => (d["a/b"]["~"] = Symbol()), /cannot store a symbol at \/a~1b\/~0:/)

    // Also if the caller goes on.
    page.change((d) => {
        assert.throws(() => (d.n = { fine: 1, not: () => {} }))
        assert.throws(() => d.todos.push("fine", undefined))
        d.end = true
    })
    assert.deepEqual(page.doc, { todos: [{}, {}], "a/b": {}, m: { x: {} }, end: true })
})

test("the same plain object can be stored twice, and so can what a document shows", () => {
    const page = new Page<any>({ m: { x: [1], c: new Counter(1) } })
    const shared = { y: 1 }
    page.change((d) => {
        d.list = [shared, shared]
        d.copy = page.doc.m
    })
    assert.deepEqual(page.doc, {
        m: { x: [1], c: new Counter(1) },
        list: [shared, shared],
        copy: { x: [1], c: new Counter(1) },
    })
})

test("an object that was removed can be stored again, as a copy", () => {
    const page = new Page<any>({ list: [{ t: "text", f: new ImmutableString("f"), in: [1] }, 2], m: {} })
    page.change((d) => {
        d.list.push(d.list.shift())
        const { in: inner } = d.list[1]
        delete d.list[1].in
        d.m.inner = [...inner]
    })
    assert.deepEqual(page.doc, { list: [2, { t: "text", f: "f" }], m: { inner: [1] } })
    const operations = page.change((d) => d.list.unshift(d.list.pop()))
    assert.deepEqual(
        operations.slice(-2).map((o) => [o[0], ...o.slice(2)]),
        [
            ["put", "t", { make: "text", id: "~11", text: "text" }],
            ["put", "f", "f"],
        ],
    )
    // In plain JavaScript, this is an edit of the copy.
    page.refuses((d) => {
        const [first] = d.list
        d.m.copy = first
        d.list.shift()
        first.t = "late"
    }, /cannot edit an object that was removed/)
    // It stands for the object where that is then.
    page.change((d) => {
        const moved = d.list.shift()
        d.list.push(moved)
        moved.t = "moved"
        assert.equal(d.list.at(-1), moved)
    })
    assert.equal(page.doc.list.at(-1).t, "moved")
})

test("what was taken out of a document is edited as plain data, and stored with that", () => {
    const cases: ((d: any) => void)[] = [
        (d) => {
            const [x] = d.todo.splice(0, 1)
            x.done = true
        },
        (d) => {
            const [x] = d.todo.splice(0, 1)
            x.done = true
            delete x.late
            d.done.push(x)
            x.after = 1
            x.tags.push("after")
        },
        (d) => {
            const x = d.todo.pop()
            const { tags, owner } = x
            owner.name = "new"
            tags.push("b", "c")
            tags.reverse()
            tags[0] = "first"
            tags.length = 2
            x.owner.more = { list: [1] }
            x.owner.more.list.push(2)
            d.done.unshift(x)
            owner.name += "er"
            tags.push("last")
        },
        (d) => {
            const { sub } = d
            delete d.sub
            sub.deep.k = 2
            const { deep, ...rest } = sub
            d.a = { ...rest, deep }
            deep.k += 1
        },
        (d) => {
            const { todo } = d
            d.todo = todo.filter((x: any) => !x.late)
            const late = todo.filter((x: any) => x.late)
            late.forEach((x: any) => (x.late = false))
            d.done = late
            todo.push({ id: 9 })
            d.n = todo.length
            todo[0].tags.push("seen")
            d.all = todo.map((x: any) => x.id)
        },
        (d) => {
            const [one, two] = d.todo.splice(0, 2)
            one.next = two
            two.id = 20
            d.chain = one
        },
        (d) => {
            const { sub } = d
            d.sub = { k: 1 }
            sub.was = true
            d.old = sub
            sub.still = 1
        },
        (d) => {
            const x = d.todo.pop()
            assert.deepEqual(Object.keys(x).sort(), ["id", "late", "owner", "tags", "when"])
            x.z = [x.id]
            assert.ok("z" in x && !("y" in x) && Array.isArray(x.tags))
            assert.equal(JSON.stringify(x.z), "[3]")
            x.when.setTime(7)
            d.done.push({ ...x, id: 4 })
        },
        (d) => {
            const tags = d.todo[0].tags
            d.todo.shift()
            tags.sort().splice(0, 1)
            d.tags = tags.concat(["z"])
        },
    ]
    for (const [index, fn] of cases.entries()) {
        const items = [1, 2, 3].map((id) => ({
            id,
            late: id !== 2,
            tags: ["a", "z"],
            owner: { name: `o${id}` },
            when: new Date(id),
        }))
        const page = new Page<any>({ todo: items, done: [], sub: { deep: { k: 1 }, m: 1 }, n: 0 })
        const plain: any = structuredClone(page.doc)
        fn(plain)
        page.change(fn)
        assert.deepEqual(structuredClone(page.doc), structuredClone(plain), `case ${index}`)
    }
})

test("a counter and fixed strings are what they are, also in what was taken out", () => {
    const page = new Page<any>({
        list: [{ n: new Counter(1), f: new ImmutableString("f"), ids: [new ImmutableString("a")] }],
        to: [],
    })
    page.change((d) => {
        const { n } = d.list[0]
        const x = d.list.pop()
        n.increment(2)
        x.n.increment()
        x.f = "g"
        x.ids.push("b")
        d.to.push(x)
        x.n.increment()
    })
    assert.equal(page.doc.to[0].n.value, 5)
    assert.deepEqual([page.tree.at(["to", 0, "f"]), (page.tree.at(["to", 0, "ids"]) as any).items], ["g", ["a", "b"]])
    page.refuses((d) => {
        const x = d.to.pop()
        x.self = x
        d.list.push(x)
    }, /an object that contains itself/)
    page.refuses((d) => {
        const x = d.to.pop()
        x.bad = () => {}
        d.list.push(x)
    }, /cannot store a function at \/list\/0\/bad/)
})

test("an update that fails leaves what was taken out as it was", () => {
    const page = new Page<any>({ list: [{ n: 1 }], to: [] })
    page.change((d) => {
        const x = d.list.pop()
        x.n = 2
        assert.throws(() => (d.to = [x, () => {}]), /function/)
        x.n += 1
        d.to.push(x)
    })
    assert.deepEqual(page.doc, { list: [], to: [{ n: 3 }] })
})

test("an edit that changes nothing is no operation", () => {
    const page = new Page<any>({
        n: 1,
        s: "text",
        f: new ImmutableString("f"),
        d: new Date(1),
        b: new Uint8Array([1]),
        z: null,
        m: { x: 1 },
        l: [1],
        c: new Counter(2),
    })
    const before = page.doc
    const operations = page.change((d) => {
        d.n = 1
        d.n = 1n as any
        d.s = "text"
        d.f = new ImmutableString("f")
        d.d = new Date(1)
        d.b = new Uint8Array([1])
        d.z = null
        d.m = d.m
        d.l[0] = 1
        d.l.push()
        d.l.splice(0, 0)
        d.c.increment(0)
        delete d.missing
        next.splice(d, ["s"], 2, 0, "")
        next.updateText(d, ["s"], "text")
        Object.assign(d, { ...d, c: d.n, n: d.n })
        d.c = new Counter(2)
    })
    // But a new counter starts anew, and a number is none.
    assert.deepEqual(operations, [
        ["put", "_root", "c", 1],
        ["put", "_root", "c", { counter: 2 }],
    ])
    assert.deepEqual(page.doc, before)
    assert.equal(page.change(() => {}).length, 0)
})

test("a string over a text is a new text, over a fixed string a fixed one", () => {
    const page = new Page<any>({ s: "old", f: new ImmutableString("f") })
    assert.deepEqual(
        page.change((d) => {
            d.s = "new"
            d.f = "g"
        }),
        [
            ["put", "_root", "s", { make: "text", id: "~2", text: "new" }],
            ["put", "_root", "f", "g"],
        ],
    )
})

test("a counter counts in a draft, wherever it is by then", () => {
    const page = new Page<any>({ c: new Counter(3), list: [new Counter()] })
    const operations = page.change((d) => {
        d.c.increment()
        d.c.decrement(5)
        assert.equal(d.c.value, -1)
        assert.equal(d.c + 0, -1)
        assert.equal(JSON.stringify(d.c), "-1")
        const { c } = d
        c.increment(2)
        assert.equal(c, d.c)
        const [inList] = d.list
        d.list.unshift("before")
        inList.increment(7)
        assert.equal(d.list.indexOf(inList), 1)
    })
    assert.deepEqual(
        operations.filter((o) => o[0] === "increment"),
        [
            ["increment", "_root", "c", 1],
            ["increment", "_root", "c", -5],
            ["increment", "_root", "c", 2],
            ["increment", "~1", 1, 7],
        ],
    )
    assert.deepEqual([page.doc.c.value, page.doc.list[1].value], [1, 7])
    assert.ok(page.doc.c instanceof Counter && Object.isFrozen(page.doc.c))
    assert.throws(() => page.doc.c.increment(), /in the draft of a change only/)
    assert.throws(() => new Counter().decrement(), /in the draft of a change only/)
    page.refuses((d) => d.c.increment(0.5), /cannot add 0.5 to the counter at \/c/)
    page.refuses((d) => d.c.increment(2 ** 53), /cannot add 9007199254740992 to the counter at \/c/)
    page.refuses((d) => {
        const { c } = d
        d.c = new Counter(0)
        c.increment()
    }, /counter that was removed/)
})

test("a text is edited by its path", () => {
    const page = new Page<any>({ a: { t: "hello" }, list: ["x"], f: new ImmutableString("f") })
    const operations = page.change((d) => {
        next.splice(d, ["a", "t"], 5, 0, " world")
        next.splice(d.a, ["t"], 0, 1, "J")
        next.splice(d, ["list", 0], 1, 0, "y")
        next.updateText(d, ["list", 0], "xyz")
        assert.equal(d.a.t, "Jello world")
        next.splice(d, ["a", "t"], 5, Infinity)
    })
    assert.deepEqual(page.doc, { a: { t: "Jello" }, list: ["xyz"], f: "f" })
    assert.deepEqual(operations[3]?.slice(2), [2, 0, "z"])
    page.refuses(
        (d) => next.splice(d, ["a", "t"], -1, 0, "x"),
        /RangeError: there is no index -1 at \/a\/t: it must be from 0 to 5/,
    )
    page.refuses((d) => next.splice(d.a, ["t"], 6, 0, "x"), /there is no index 6 at \/a\/t/)
    page.refuses((d) => next.splice(d, ["a", "t"], 0.5, 0, "x"), /there is no index 0.5 at/)
    page.refuses((d) => next.splice(d, ["a", "t"], 0, -1), /cannot delete -1 characters at \/a\/t/)
    page.refuses((d) => next.splice(d, ["a", "t"], 0, 0, 5 as any), /cannot insert 5 into the text at \/a\/t/)
    page.refuses((d) => next.splice(d, ["f"], 0, 0, "x"), /the string at \/f is fixed/)
    page.refuses((d) => next.splice(d, ["no", "t"], 0, 0, "x"), /there is no text at \/no\/t/)
    page.refuses((d) => next.updateText(d, ["a"], "x"), /there is no text at \/a/)
    page.refuses((d) => next.updateText(d, ["a", "t"], null as any), /cannot store null as the text at \/a\/t/)
    assert.throws(() => next.splice(page.doc, ["a", "t"], 0, 0, "x"), /only the draft of a change/)
})

test("no edit of a text splits a pair of surrogates", () => {
    const page = new Page<any>({ t: "a😀b" })
    page.change((d) => next.splice(d, ["t"], 2, 0, "x"))
    assert.equal(page.doc.t, "a😀xb")
    page.change((d) => next.splice(d, ["t"], 1, 1))
    assert.equal(page.doc.t, "axb")
    page.change((d) => next.splice(d, ["t"], 0, 0, "😀".slice(1)))
    assert.equal(page.doc.t, "\ufffdaxb")
})

test("marks become operations, and change nothing that is shown", () => {
    const page = new Page<any>({ t: "hello😀" })
    const before = page.doc
    assert.deepEqual(
        page.change((d) => {
            next.mark(d, ["t"], { start: 0, end: 2 }, "bold", true)
            next.mark(d, ["t"], { start: 1, end: 6, expand: "none" }, "link", "https://example.com")
            next.unmark(d, ["t"], { start: 0, end: 1, expand: "both" }, "bold")
        }),
        [
            ["mark", "~1", 0, 2, "bold", true, "after"],
            ["mark", "~1", 1, 7, "link", "https://example.com", "none"],
            ["mark", "~1", 0, 1, "bold", null, "both"],
        ],
    )
    assert.equal(page.doc, before)
    assert.deepEqual(page.patches, [
        { action: "mark", path: ["t"], marks: [{ name: "bold", start: 0, end: 2, value: true }] },
        { action: "mark", path: ["t"], marks: [{ name: "link", start: 1, end: 7, value: "https://example.com" }] },
        { action: "unmark", path: ["t"], name: "bold", start: 0, end: 1 },
    ])
    page.refuses(
        (d) => next.mark(d, ["t"], { start: 3, end: 2 }, "b", true),
        /there is no index 3 at \/t: it must be from 0 to 2/,
    )
    page.refuses((d) => next.mark(d, ["t"], { start: 0, end: 9 }, "b", true), /there is no index 9 at \/t/)
    page.refuses((d) => next.mark(d, ["t"], { start: 0, end: 1 }, "b", {}), /only with plain values/)
})

test("blocks take one place in a text each", () => {
    const page = new Page<any>({ t: "onetwo" })
    page.change((d) => {
        next.splitBlock(d, ["t"], 3, { type: "paragraph", parents: ["list"] })
        next.splitBlock(d, ["t"], 0, { type: "heading" })
        next.updateText(d, ["t", 4, "type"], "para")
    })
    assert.equal(page.doc.t, "\uFFFCone\uFFFCtwo")
    const block = page.tree.at(["t", 4])
    assert.deepEqual(page.tree.view(block as any), { type: "para", parents: ["list"] })
    page.change((d) => {
        next.splice(d, ["t"], 1, 2, "seventy-")
        next.joinBlock(d, ["t"], 0)
        next.updateBlock(d, ["t"], 9, { type: "quote" })
    })
    assert.equal(page.doc.t, "seventy-e\uFFFCtwo")
    assert.deepEqual(page.tree.view(page.tree.at(["t", 9]) as any), { type: "quote" })
    assert.equal(page.tree.node((block as any).id), undefined)
    page.refuses((d) => next.joinBlock(d, ["t"], 0), /there is no block at \/t\/0/)
    page.refuses((d) => next.updateBlock(d, ["t"], 3, {}), /there is no block at \/t\/3/)
    page.refuses((d) => next.splitBlock(d, ["t"], 0, []), /a block must be a plain object, at \/t\/0/)
    page.refuses((d) => next.updateBlock(d, ["t"], 9, { a: Symbol() }), /cannot store a symbol at \/t\/9\/a/)
    page.change((d) => next.splice(d, ["t"], 8, 3))
    assert.equal(page.doc.t, "seventy-wo")
    assert.equal(page.tree.at(["t", 9]), undefined)
})

test("a change that throws did nothing", () => {
    const page = new Page<any>({
        m: { x: 1, t: "t" },
        l: [1, { a: [] }, 3],
        c: new Counter(1),
        gone: { deep: { t: "x" } },
    })
    const before = page.doc
    page.refuses((d) => {
        d.m.x = 2
        d.m.y = { z: [1, { t: "u" }] }
        d.m.y.z[1].t = "v"
        next.splice(d, ["m", "t"], 0, 1, "T")
        next.splitBlock(d, ["m", "t"], 0, { type: "p" })
        d.l.splice(0, 2, "a", "b", "c")
        d.l[1] = {}
        d.c.increment()
        delete d.gone
        d.gone = 5
        throw new Error("no")
    }, /no/)
    assert.equal(page.doc, before)
    page.change((d) => {
        next.splice(d, ["gone", "deep", "t"], 1, 0, "y")
        d.l[1].a.push(1)
    })
    assert.deepEqual(page.doc, {
        m: { x: 1, t: "t" },
        l: [1, { a: [1] }, 3],
        c: new Counter(1),
        gone: { deep: { t: "xy" } },
    })
})

test("a change must be synchronous, and not within another one", async () => {
    const page = new Page<any>({ a: 1, l: [{}] })
    page.refuses(async (d) => {
        d.a = 2
        await null
        d.a = 3
    }, /a change must be synchronous/)
    page.refuses(() => page.change((d) => (d.a = 2)), /cannot be made within another one/)
    await new Promise((resolve) => setTimeout(resolve))
    assert.equal(page.doc.a, 1)
    page.change((d) => (d.a = 4))
    assert.equal(page.doc.a, 4)
})

test("a draft cannot be used after its change", () => {
    const page = new Page<any>({ a: 1, l: [{}], c: new Counter(), t: "t" })
    let kept: any
    let list: any
    let counter: any
    page.change((d) => {
        kept = d
        list = d.l
        counter = d.c
    })
    const uses = [
        () => kept.a,
        () => (kept.a = 2),
        () => delete kept.a,
        () => "a" in kept,
        () => Object.keys(kept),
        () => list[0],
        () => list.length,
        () => list.push(1),
        () => (list[0] = 1),
        () => list.map,
        () => counter.increment(),
        () => next.splice(kept, ["t"], 0, 0, "x"),
        () => next.insertAt(list, 0, 1),
        () => 0 in list,
        () => page.change((d) => (d.x = kept)),
        () => delete list[0],
    ]
    for (const use of uses) assert.throws(use, /this draft's change has ended/, String(use))
})

test("a draft of another document is stored as a copy", () => {
    const [a, b] = [new Page<any>({ m: { x: [1, new ImmutableString("f")] } }), new Page<any>()]
    a.change((from) => b.change((to) => (to.m = from.m)))
    assert.deepEqual(b.doc, { m: { x: [1, "f"] } })
})

test("Automerge's own counters and fixed strings are known", () => {
    const page = new Page<any>()
    const foreign = { value: 2, [Symbol.for("_am_counter")]: true }
    page.change((d) => Object.assign(d, { c: foreign, s: { val: "s", [Symbol.for("_am_immutableString")]: true } }))
    assert.deepEqual(page.doc, { c: new Counter(2), s: "s" })
})

test("large lists can be stored, filled and emptied", () => {
    const page = new Page<any>()
    const many = Array.from({ length: 200_000 }, (_, i) => (i % 2 ? i : { i }))
    page.change((d) => (d.l = many))
    page.refuses((d) => {
        d.l.length = 0
        throw new Error("no")
    }, /no/)
    assert.deepEqual(page.doc.l, many)
})

// What the compiler must accept; it is never run.
interface Example {
    readonly title: string
    todos: readonly { readonly text: string; done?: boolean; tags: string[] }[]
    count: Counter
    at: Date
    readonly bytes: Uint8Array
    fixed: ImmutableString
}
export function types(d: Draft<Example>, any: Draft<any>, unknown: Draft<unknown>): unknown {
    d.title = "x"
    d.todos = []
    d.todos.push({ text: "t", tags: ["a"] })
    d.todos[0]!.done = true
    next.insertAt(d.todos, 0, { text: "t", tags: [] })
    d.count.increment()
    d.at = new Date()
    d.bytes = new Uint8Array()
    d.fixed = new ImmutableString("x")
    // @ts-expect-error
    d.title = 5
    // @ts-expect-error
    d.todos[0].missing
    any.whatever = 1
    return unknown
}

test("what is too much for one change throws before anything happens", () => {
    const page = new Page<any>({ text: "whole", list: [0], kept: true })
    const before = page.doc
    const characters = 14_500_000
    const refused = [
        (draft: any) => next.splice(draft, ["text"], 0, 0, "x".repeat(characters)),
        (draft: any) => (draft.text = "x".repeat(characters)),
        (draft: any) => (draft.fixed = new ImmutableString("x".repeat(34 * 1024 * 1024))),
        (draft: any) => (draft.bytes = new Uint8Array(97 * 1024 * 1024)),
        (draft: any) => {
            // None of them alone, all together.
            for (let n = 0; n < 15; n++) next.splice(draft, ["text"], 0, 0, "y".repeat(1_000_000))
        },
    ]
    for (const edit of refused) {
        assert.throws(() => page.change(edit), RangeError)
        assert.equal(page.doc, before)
    }
    page.change((draft) => {
        next.splice(draft, ["text"], 0, 0, "z".repeat(5_000_000))
        draft["kept"] = false
    })
    assert.equal(page.doc.text.length, 5_000_005)
    assert.equal(page.doc.kept, false)
})
