// Loads the core's module, once in a thread.

import { initSync } from "../../dist/core/reconverge.js"
import { words } from "./protocol.js"

/** The instance of this thread. */
let started: Promise<unknown> | undefined

/** Until the server begins to answer, and until the module is here: else another tab may try. */
const ANSWER_MS_MAX = 20_000
const MODULE_MS_MAX = 300_000

/** `module` is its url, its bytes, or compiled; or a promise of these. */
export function startModule(module: unknown): Promise<unknown> {
    started ??= compiled(module).then((module) => initSync({ module }))
    started.catch(() => (started = undefined))
    return started
}

async function compiled(given: unknown): Promise<WebAssembly.Module> {
    const module = await given
    if (module instanceof WebAssembly.Module) return module
    if (typeof module !== "string") return WebAssembly.compile(module as BufferSource)
    const late = new AbortController()
    const within = (ms: number): ReturnType<typeof setTimeout> =>
        setTimeout(() => late.abort(new Error(`cannot load ${String(module)} within ${ms / 1000} s`)), ms)
    let timer = within(ANSWER_MS_MAX)
    try {
        const response = await fetch(module, { signal: late.signal }).catch((error: unknown) => {
            throw late.signal.aborted ? error : new Error(`cannot load ${module}: ${words(error)}`)
        })
        if (!response.ok) throw new Error(`cannot load ${response.url}: ${response.status} ${response.statusText}`)
        clearTimeout(timer)
        timer = within(MODULE_MS_MAX)
        // Nothing else is compiled while it comes.
        if (response.headers.get("content-type") === "application/wasm") {
            return await WebAssembly.compileStreaming(response)
        }
        return await WebAssembly.compile(await response.arrayBuffer())
    } finally {
        clearTimeout(timer)
    }
}
