/** What this browser remembers. */

/** A page with `?replica=2` is another user in this browser, with a storage of its own. */
export const replica = /[?&]replica=(\d{1,4})(&|$)/.exec(location.search)?.[1] ?? ""

const prefix = `reconverge-demo${replica}:`

export function kept<T>(key: string): T | undefined {
    try {
        return (JSON.parse(localStorage.getItem(prefix + key) ?? "null") as T | null) ?? undefined
    } catch {
        // Private windows may have no storage, and what is in it may be of another version.
        return undefined
    }
}

export function keep(key: string, value: unknown): void {
    try {
        if (value === undefined) localStorage.removeItem(prefix + key)
        else localStorage.setItem(prefix + key, JSON.stringify(value))
    } catch {
        // Then it holds for this visit.
    }
}
