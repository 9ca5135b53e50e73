// What can be taken back of a handle's edits. The page keeps it, as the host may be another one by
// the time that somebody asks: of each edit what takes it back, which the host recorded.

import type { Recorded, Taken } from "./host/protocol.js"
import type { Operation } from "./operations.js"
import type { Node, Tree } from "./tree.js"

/** Most steps that can be taken back, and most bytes that are kept for that, for redo and for names, each. */
const STEPS_MAX = 1000
const BYTES_MAX = 64 * 1024 * 1024

/** Edits of one text that follow each other within so many seconds are one step. */
const PAUSE_S = 0.5

/** One edit, by what the host calls it until the page has what takes it back. */
interface Part {
    readonly key: number
    record?: Uint8Array
}

/** What is taken back at once. */
export interface Step {
    parts: Part[]
    /** The names of the innermost object in which everything happened, and of those around it. */
    around: readonly string[]
    /** When the last of it was made, in seconds since 1970. */
    at: number
    /** It is typing in this text. */
    text?: string | undefined
    /** Its name, if the page gave it one. */
    readonly name?: string | undefined
    /** It was taken back by somebody who asked for what happened in this object. */
    within?: string | undefined
    /** How many bytes its records have. */
    bytes: number
    /** It is being taken back. It stays in its place until it is known that it was. */
    isTaken?: boolean
}

export type Direction = "back" | "again"

export class Undos {
    #steps = { back: [] as Step[], again: [] as Step[] }
    /** What was not recorded yet, by its key. */
    #awaited = new Map<number, [Step, Part]>()
    /** What came back, for the next host. */
    renamed: Uint8Array[] = []
    #takings = 0
    /** The last of those that was answered. */
    told = 0

    /** Whether there is something, of what happened within an object. */
    can(direction: Direction, within?: string): boolean {
        return this.#steps[direction].some(isOf(within))
    }

    /** This page edited. Gives whether something else can be taken back now. */
    made(seq: number, operations: readonly Operation[], tree: Tree, at: number, name?: string): boolean {
        const [, text = ""] = operations[0] ?? []
        const isTyping = operations.every(([kind, object]) => kind === "splice" && object === text)
        const around = commonly(operations, tree)
        const isLess = this.#endRedo(around)
        return this.#add(seq, around, at, isTyping ? text : undefined, name) || isLess
    }

    /** The host edits for this page, at an object, if it changes anything. Gives what it `hasMade` then. */
    makes(node: Node, at: number, name?: string): number {
        this.#add(--this.#takings, namesAround(node), at, undefined, name)
        return this.#takings
    }

    /** The host did; without a record it changed nothing, or could not. */
    hasMade(key: number, record?: Uint8Array): void {
        const [step] = this.#awaited.get(key) ?? []
        // Not what takes that back, if it is taken back by now.
        if (step && !step.isTaken && record?.length) this.#endRedo(step.around)
        this.record(key, record)
        this.told = Math.min(this.told, key)
    }

    #add(key: number, around: string[], at: number, text: string | undefined, name: string | undefined): boolean {
        const { back } = this.#steps
        const last = back.at(-1)
        const part: Part = { key }
        const isSame = last?.name === name && (name !== undefined || (text !== undefined && text === last?.text))
        // A clock may have been set back.
        const isSoon = last !== undefined && Math.abs(at - last.at) < PAUSE_S
        const joins = last !== undefined && !last.isTaken && isSame && (name !== undefined || isSoon)
        const step = joins ? last : { parts: [], around, at, text, name, bytes: 0 }
        if (!joins) back.push(step)
        step.parts.push(part)
        step.at = at
        step.around = step.around.filter((id) => around.includes(id))
        this.#awaited.set(key, [step, part])
        this.#limit()
        return !joins
    }

    /** Where something is done, nothing is done again. Gives whether something was to be. */
    #endRedo(around: readonly string[]): boolean {
        const { again } = this.#steps
        this.#steps.again = again.filter(({ within }) => within !== undefined && !around.includes(within))
        return this.#steps.again.length < again.length
    }

    /** What the host recorded of edits up to this one. Gives whether there is less to take back than it seemed. */
    recorded(records: readonly Recorded[], seq: number): boolean {
        const known = new Map(records)
        const due = [...this.#awaited.keys()].filter((key) => key > 0 && key <= seq)
        return due.map((key) => this.record(key, known.get(key))).includes(true)
    }

    /** What takes this back; nothing if it was not made, or changed nothing. Gives the same. */
    record(key: number, record?: Uint8Array): boolean {
        const [step, part] = this.#awaited.get(key) ?? []
        this.#awaited.delete(key)
        if (!step || !part) return false
        if (record?.length) {
            part.record = record
            step.bytes += record.length
            return this.#limit()
        }
        step.parts = step.parts.filter((other) => other !== part)
        return step.parts.length === 0 && this.#remove(step)
    }

    /** Objects have other names now. */
    rename(names: ReadonlyMap<string, string>): void {
        for (const step of [...this.#steps.back, ...this.#steps.again]) {
            step.around = step.around.map((name) => names.get(name) ?? name)
            step.text &&= names.get(step.text) ?? step.text
            step.within &&= names.get(step.within) ?? step.within
        }
    }

    /** Begins to take back the last step, or to do it again, of what happened within an object. */
    take(direction: Direction, within?: string): { step: Step; as: number } | undefined {
        const step = this.#steps[direction].findLast(isOf(within))
        if (!step) return undefined
        step.isTaken = true
        const as = --this.#takings
        const part: Part = { key: as }
        // Long ago, so that nothing joins it.
        const opposite = { parts: [part], around: step.around, at: 0, within, bytes: 0 }
        this.#awaited.set(as, [opposite, part])
        this.#steps[direction === "back" ? "again" : "back"].push(opposite)
        return { step, as }
    }

    /** What became of that. */
    taken(step: Step, as: number, { record, renamed, objects }: Taken): void {
        this.#remove(step)
        this.record(as, record)
        this.told = Math.min(this.told, as)
        if (renamed.length > 0) this.renamed = latest([...this.renamed, renamed], ({ length }) => length)
        const names = new Map<string, string>()
        for (let i = 0; i < objects.length; i += 2) names.set(objects[i]!, objects[i + 1]!)
        if (names.size > 0) this.rename(names)
    }

    /** It could not be asked for. */
    failed(step: Step, as: number): void {
        this.record(as)
        step.isTaken = false
    }

    #remove(step: Step): boolean {
        const { back, again } = this.#steps
        const steps = back.includes(step) ? back : again
        const at = steps.indexOf(step)
        if (at >= 0) steps.splice(at, 1)
        return at >= 0
    }

    /** Gives whether there is less now. */
    #limit(): boolean {
        const { back, again } = this.#steps
        const size = ({ bytes }: Step): number => bytes
        this.#steps = { back: latest(back, size), again: latest(again, size) }
        return this.#steps.back.length < back.length || this.#steps.again.length < again.length
    }
}

/** Those at the end, up to so many, and up to so many bytes in all. */
function latest<T>(all: T[], size: (one: T) => number): T[] {
    let bytes = 0
    const from = all.findLastIndex((one, at) => (bytes += size(one)) > BYTES_MAX || at < all.length - STEPS_MAX) + 1
    return from === 0 ? all : all.slice(from)
}

/** Whether it can be taken back by who asks for what happened within an object. */
function isOf(within: string | undefined) {
    return ({ around, isTaken }: Step): boolean => !isTaken && (within === undefined || around.includes(within))
}

function namesAround(node: Node | undefined): string[] {
    const names: string[] = []
    for (let at = node; at; at = at.parent) names.push(at.id)
    return names
}

/** The innermost object in which all of this happened, and those around it. */
function commonly(operations: readonly Operation[], tree: Tree): string[] {
    let common: string[] | undefined
    for (const object of new Set(operations.map((operation) => operation[1]))) {
        const node = tree.node(object)
        // It was made and removed in one.
        if (!node) continue
        const names = namesAround(node)
        common = common?.filter((name) => names.includes(name)) ?? names
    }
    return common ?? []
}
