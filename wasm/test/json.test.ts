/** Documents as JSON, and back. */

import assert from "node:assert/strict"
import { test } from "node:test"
import { Counter, ImmutableString } from "../js/counter.js"
import { type Json, fromJSON, toJSON } from "../js/json.js"
import { type Entry, isNode } from "../js/tree.js"
import { Page } from "./page.js"
import { type Random, random } from "./random.js"

/** What a document has, with what of it is a text and what a fixed string. */
function kinds(entry: Entry): unknown {
    if (!isNode(entry)) return typeof entry === "string" ? { fixed: entry } : entry
    if (entry.kind === "text") return { text: entry.text }
    if (entry.kind === "list") return entry.items.map(kinds)
    return new Map([...entry.entries].sort().map(([key, inner]) => [key, kinds(inner)]))
}

function goesRound(initial: object): Json {
    const page = new Page(initial)
    const json = toJSON(page.doc)
    const again = new Page(fromJSON(JSON.parse(JSON.stringify(json)) as Json) as object)
    assert.deepEqual(kinds(again.tree.root), kinds(page.tree.root))
    return json
}

test("every kind of value goes round", () => {
    const json = goesRound({
        text: "é😀\n",
        fixed: new ImmutableString("open"),
        count: new Counter(-3),
        at: new Date(1_800_000_000_123),
        bytes: new Uint8Array([0, 1, 255]),
        none: new Uint8Array(),
        large: 2n ** 60n,
        largest: [2n ** 64n - 1n, 2n ** 63n, -(2n ** 63n)],
        odd: [NaN, Infinity, -Infinity, 0.1, -1, 1e300],
        list: [null, true, [new ImmutableString("a"), "b", { deep: [] }], {}],
    })
    assert.deepEqual(json, {
        text: "é😀\n",
        fixed: { $fixed: "open" },
        count: { $counter: -3 },
        at: { $date: "2027-01-15T08:00:00.123Z" },
        bytes: { $bytes: "AAH/" },
        none: { $bytes: "" },
        large: { $int: "1152921504606846976" },
        largest: [{ $int: "18446744073709551615" }, { $int: "9223372036854775808" }, { $int: "-9223372036854775808" }],
        odd: [{ $number: "NaN" }, { $number: "Infinity" }, { $number: "-Infinity" }, 0.1, -1, 1e300],
        list: [null, true, [{ $fixed: "a" }, "b", { deep: [] }], {}],
    })
})

test("keys are keys, whatever they are", () => {
    goesRound({ $fixed: "x", a: { $map: { $int: "1" } }, b: { $: 1, plain: { $date: [] } }, "": 0 })
    goesRound({ constructor: "y", toString: { valueOf: 1 } })
})

test("parts, and values of one's own, too", () => {
    const page = new Page<any>({ cards: [{ state: new ImmutableString("open") }] })
    assert.deepEqual(toJSON(page.doc.cards[0]), { state: { $fixed: "open" } })
    page.change((d) => d.cards.push(fromJSON(toJSON(page.doc.cards[0]))))
    assert.deepEqual(
        kinds(page.tree.root),
        new Map([["cards", [0, 1].map(() => new Map([["state", { fixed: "open" }]]))]]),
    )
    assert.deepEqual(toJSON([new Counter(1), new ImmutableString("x"), 7n]), [
        { $counter: 1 },
        { $fixed: "x" },
        { $int: "7" },
    ])
})

test("what was not said by it is refused with its tag", () => {
    for (const json of [
        { $fixed: 1 },
        { $counter: 0.5 },
        { $date: "never" },
        { $date: "2026-02-30T00:00:00.000Z" },
        { $date: "2026-01-01T00:00:00" },
        { $date: "Nov 30 2026" },
        { $bytes: "?" },
        { $bytes: " AQ==" },
        { $int: "1e3" },
        { $int: "007" },
        { $int: "18446744073709551616" },
        { $int: "-9223372036854775809" },
        { $number: "1" },
        { $map: [] },
        { $other: 1 },
        { $fixed: "a", b: 1 },
        { $toString: 1 },
    ] as Json[]) {
        assert.throws(() => fromJSON([{ a: json }]), /TypeError: this is no \$/)
    }
    for (const value of [undefined, () => {}, Symbol("s"), new Map()]) {
        assert.throws(() => toJSON({ a: value }), /TypeError: a document does not hold this at \/a/)
    }
    assert.throws(() => toJSON({ a: [1, new Date(NaN)] }), /TypeError: JSON cannot say the date at \/a\/1/)
})

function randomValue(r: Random, depth: number): unknown {
    const kinds = [
        () => r.pick(["", "$fixed", "a", "😀"]),
        () => new ImmutableString(r.pick(["", "x", "$map"])),
        () => new Counter(r.below(100) - 50),
        () => new Date(r.below(2 ** 31) * 1000),
        () => Uint8Array.from({ length: r.below(5) }, () => r.below(256)),
        () => BigInt(r.below(2 ** 31)) * 2n ** 31n,
        () => r.pick([NaN, -Infinity, 1, 0.5, null, true]),
    ]
    if (depth < 4) {
        const inner = (): unknown => randomValue(r, depth + 1)
        kinds.push(() => Array.from({ length: r.below(4) }, inner))
        const key = (): string => r.pick(["a", "b", "$fixed", "$map", "$", ""])
        kinds.push(() => Object.fromEntries(Array.from({ length: r.below(4) }, () => [key(), inner()])))
    }
    return r.pick(kinds)()
}

test("random documents go round", (t) => {
    const r = random()
    t.diagnostic(`RECONVERGE_SEED=${r.seed}`)
    for (let run = 0; run < 500; run++) goesRound({ a: randomValue(r, 0), $b: randomValue(r, 0) })
})
