/** Randomness that can be had again: `RECONVERGE_SEED=n` repeats a run. */
export function random(seed = Number(process.env["RECONVERGE_SEED"] ?? Math.floor(Math.random() * 2 ** 32))) {
    let state = seed >>> 0
    /** Mulberry32, by Tommy Ettinger. */
    const next = (): number => {
        state = (state + 0x6d2b79f5) >>> 0
        let t = Math.imul(state ^ (state >>> 15), state | 1)
        t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
        return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
    }
    const below = (limit: number): number => Math.floor(next() * limit)
    return {
        seed,
        below,
        chance: (probability: number): boolean => next() < probability,
        pick: <T>(from: readonly T[]): T => from[below(from.length)]!,
    }
}

export type Random = ReturnType<typeof random>
