// What a document is while it is edited.

import type { Counter, ImmutableString } from "../counter.js"
import type { View } from "../types.js"

/**
 * A document, writable. Its lists have `insertAt(index, ...values)` and `deleteAt(index, count?)`
 * too; they are not in the type, as no plain array could be assigned to such a list then.
 */
export type Draft<T> = T extends string | number | boolean | bigint | symbol | null | undefined
    ? T
    : T extends ImmutableString
      ? ImmutableString | string
      : T extends Date | Uint8Array | Counter
        ? T
        : T extends readonly [] | readonly [unknown, ...unknown[]]
          ? { -readonly [K in keyof T]: Draft<T[K]> }
          : T extends readonly (infer E)[]
            ? DraftList<E>
            : T extends object
              ? { -readonly [K in keyof T]: Draft<T[K]> }
              : T

/** A list in a draft. What is inserted may be readonly, as what a document shows is. */
export interface DraftList<E> extends Array<Draft<E>> {
    push(...values: (Draft<E> | View<E> | E)[]): number
    unshift(...values: (Draft<E> | View<E> | E)[]): number
    splice(start: number, deleted?: number): Draft<E>[]
    splice(start: number, deleted: number, ...values: (Draft<E> | View<E> | E)[]): Draft<E>[]
    fill(value: Draft<E> | View<E> | E, start?: number, end?: number): this
}
