import assert from "node:assert/strict"
import { test } from "node:test"
import { BACKLOG_MAX, Emitter } from "../js/emitter.js"

interface Events {
    count: number
    end: undefined
}

test("listeners get what they asked for, until they are off", () => {
    const emitter = new Emitter<Events>()
    const seen: number[] = []
    const listener = (n: number): void => void seen.push(n)
    const off = emitter.on("count", listener)
    emitter.on("count", (n) => {
        if (n === 2) emitter.off("count", last)
    })
    const last = (n: number): void => void seen.push(n * 10)
    emitter.on("count", last)
    assert.ok(emitter.has("count") && !emitter.has("end"))
    emitter.emit("count", 1)
    emitter.emit("count", 2)
    off()
    emitter.emit("count", 3)
    assert.deepEqual(seen, [1, 10, 2])
})

test("what is no event is not listened to in vain", () => {
    const emitter = new Emitter<Events>(["count", "end"])
    emitter.on("count", () => {})
    assert.throws(() => emitter.on("cuont" as "count", () => {}), /TypeError: there is no event "cuont"; .* count, end/)
})

test("a listener's error does not stop the others, and is reported", (t) => {
    const emitter = new Emitter<Events>()
    const reported = t.mock.method(console, "error", () => {})
    const seen: number[] = []
    emitter.on("count", () => {
        throw new Error("mine")
    })
    emitter.on("count", (n) => seen.push(n))
    emitter.emit("count", 1)
    assert.deepEqual(seen, [1])
    assert.equal(reported.mock.callCount(), 1)
})

test("an iteration has the events from its beginning on, until it is left", async () => {
    const emitter = new Emitter<Events>()
    emitter.emit("count", 0)
    const events = emitter.iterate("count")
    emitter.emit("count", 1)
    emitter.emit("count", 2)
    const seen: number[] = []
    for await (const n of events) {
        seen.push(n)
        if (n === 2) setTimeout(() => emitter.emit("count", 3))
        if (n === 3) break
    }
    assert.deepEqual(seen, [1, 2, 3])
    assert.ok(!emitter.has("count"))
    assert.deepEqual(await events.next(), { value: undefined, done: true })
})

test("a slow consumer gets the newest events", async () => {
    const emitter = new Emitter<Events>()
    const events = emitter.iterate("count")
    for (let n = 0; n < BACKLOG_MAX + 5; n++) emitter.emit("count", n)
    emitter.close()
    const seen: number[] = []
    for await (const n of events) seen.push(n)
    assert.deepEqual([seen.length, seen[0], seen.at(-1)], [BACKLOG_MAX, 5, BACKLOG_MAX + 4])
})

test("an iteration ends with its signal, also while it waits", async () => {
    const emitter = new Emitter<Events>()
    const controller = new AbortController()
    const events = emitter.iterate("count", controller.signal)
    const [one, two] = [events.next(), events.next()]
    emitter.emit("count", 1)
    controller.abort()
    assert.deepEqual(await one, { value: 1, done: false })
    assert.deepEqual(await two, { value: undefined, done: true })
    assert.ok(!emitter.has("count"))
    assert.deepEqual(await emitter.iterate("count", controller.signal).next(), { value: undefined, done: true })
    assert.ok(!emitter.has("count"))
})

test("what a listener causes is told to all after what they are being told", () => {
    const emitter = new Emitter<{ n: number; end: undefined }>()
    const heard: string[] = []
    emitter.on("n", (n) => {
        heard.push(`first ${n}`)
        if (n === 1) {
            emitter.emit("n", 2)
            emitter.emit("end", undefined)
            emitter.close()
        }
    })
    emitter.on("n", (n) => heard.push(`second ${n}`))
    emitter.on("end", () => heard.push("end"))
    emitter.emit("n", 1)
    emitter.emit("n", 3)
    assert.deepEqual(heard, ["first 1", "second 1", "first 2", "second 2", "end"])
})

test("an iteration of what was closed has no events and ends", async () => {
    const emitter = new Emitter<{ n: number }>()
    emitter.close()
    assert.deepEqual(await emitter.iterate("n").next(), { value: undefined, done: true })
})

test("what fails at the end of an emitter keeps none of its events back", () => {
    const emitter = new Emitter<{ n: number }>()
    const heard: number[] = []
    emitter.iterate("n", { addEventListener: () => {}, removeEventListener: undefined } as never)
    assert.throws(() => emitter.close(), TypeError)
    emitter.on("n", (n) => heard.push(n))
    emitter.emit("n", 1)
    assert.deepEqual(heard, [1])
})
