// The tokens that a page is asked for.

import type { HostMessage } from "./protocol.js"

/** A page that takes longer to give a token may be frozen. */
const TOKEN_MS_MAX = 4_000

interface Asked {
    readonly given: Promise<string>
    readonly give: (token: string | undefined, failure: string) => void
}

export class Tokens {
    #post: (message: HostMessage) => void
    #asked = new Map<string, Asked>()

    constructor(post: (message: HostMessage) => void) {
        this.#post = post
    }

    /** What the page gives too late is there for the next who asks, and `cameLate` is called. */
    async ask(relay: string, cameLate: () => void): Promise<string> {
        let asked = this.#asked.get(relay)
        if (asked === undefined) {
            let give: Asked["give"] = () => {}
            const given = new Promise<string>((resolve, reject) => {
                give = (token, failure) => {
                    if (token === undefined) reject(new Error(`there is no token: ${failure}`))
                    else resolve(token)
                }
            })
            this.#asked.set(relay, (asked = { given, give }))
            this.#post({ type: "ask", relay })
        }
        let timer: ReturnType<typeof setTimeout> | undefined
        let isLate = false
        const late = new Promise<undefined>((resolve) => {
            timer = setTimeout(() => resolve(void (isLate = true)), TOKEN_MS_MAX)
        })
        try {
            const token = await Promise.race([asked.given, late])
            if (token === undefined) throw new Error("there is no token: it takes too long")
            return token
        } finally {
            clearTimeout(timer)
            if (isLate) asked.given.then(cameLate).catch(() => {})
            else if (this.#asked.get(relay) === asked) this.#asked.delete(relay)
        }
    }

    /** The page's answer. */
    give(relay: string, token: string | undefined, failure: string): void {
        const asked = this.#asked.get(relay)
        // It is asked again from now on, also before whoever waits hears that there is none.
        if (token === undefined) this.#asked.delete(relay)
        asked?.give(token, failure)
    }

    /** The page gives none any more. */
    end(): void {
        for (const { give } of this.#asked.values()) give(undefined, "")
    }
}
