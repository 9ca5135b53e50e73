// Maps with several values for a key.

export function push<T>(map: Map<string, T[]>, key: string, value: T): void {
    const values = map.get(key)
    if (values) values.push(value)
    else map.set(key, [value])
}

export function take<T>(map: Map<string, T[]>, key: string): T[] {
    const taken = map.get(key) ?? []
    map.delete(key)
    return taken
}
