/** Which modules import which. */
export type Imports = ReadonlyMap<string, readonly string[]>

/** The modules that a source imports, of its own package; types count, too. */
export function importsOf(source: string): string[] {
    const imports = source.matchAll(
        /^(?:import|export)\s(?:[^"'=;]*\sfrom\s)?"(\.[^"]+\.js)"|\bimport\("(\.[^"]+\.js)"\)/gm,
    )
    return [...imports].map(([, fixed, later]) => fixed ?? later!)
}

/** Modules that import each other, one after the other and the last one the first; undefined if none do. */
export function cycleIn(imports: Imports): string[] | undefined {
    const done = new Set<string>()
    const search = (module: string, before: readonly string[]): string[] | undefined => {
        const at = before.indexOf(module)
        if (at >= 0) return before.slice(at)
        if (done.has(module)) return undefined
        for (const next of imports.get(module) ?? []) {
            const cycle = search(next, [...before, module])
            if (cycle) return cycle
        }
        done.add(module)
        return undefined
    }
    for (const module of imports.keys()) {
        const cycle = search(module, [])
        if (cycle) return cycle
    }
    return undefined
}
