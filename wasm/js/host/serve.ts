// How pages and their host find each other.
//
// All tabs of an origin that open the same database ask for one Web Lock. Who gets it runs the
// host; the lock passes on when that tab is closed, however it ends. A tab that is not the host's
// speaks with it by a BroadcastChannel of their own. It holds a lock while it lives, by which the
// host learns that it is gone.

import type { Host } from "./host.js"
import type { HostMessage, PageMessage, Port } from "./protocol.js"
import type { Wishes } from "./wanted.js"

export const hostLock = (name: string): string => `reconverge:${name}`
export const pageLock = (name: string, page: string): string => `reconverge:${name}:${page}`

/** What a page says as it goes is heard this long. */
const LAST_WORDS_MS = 100

/** What is said on the channel of all pages. */
export type Announcement =
    | { readonly type: "host" }
    /** Each hello names a channel of its own. */
    | { readonly type: "hello"; readonly page: string; readonly channel: string; readonly wishes: Wishes }

export function commonChannel(name: string): BroadcastChannel {
    return new BroadcastChannel(`reconverge:${name}`)
}

export function channelPort<Out, In>(name: string, own: string): Port<Out, In> {
    const channel = new BroadcastChannel(`reconverge:${name}:${own}`)
    const port: Port<Out, In> = {
        post: (message) => channel.postMessage(message),
        onmessage: undefined,
        close: () => {
            // A closed one throws.
            port.post = () => {}
            channel.close()
        },
    }
    channel.onmessage = ({ data }) => port.onmessage?.(data as In)
    return port
}

/** Two ends in one thread. What is sent arrives later, in order, and must not be changed. */
export function localPorts<A, B>(): [Port<A, B>, Port<B, A>] {
    const link = <Out, In>(): Port<Out, In> => ({ post: () => {}, onmessage: undefined, close: () => {} })
    const near = link<A, B>()
    const far = link<B, A>()
    near.post = (message) => queueMicrotask(() => far.onmessage?.(message))
    far.post = (message) => queueMicrotask(() => near.onmessage?.(message))
    return [near, far]
}

/**
 * Lets the other tabs attach to a host, which first takes up what tabs that are gone left. Gives what
 * ends that.
 */
export function serveTabs(host: Host, name: string): () => void {
    const detach = new Map<string, () => void>()
    const gone = new AbortController()
    const whenGone = (page: string, then: () => void): void => {
        const lock = navigator.locks.request(pageLock(name, page), { signal: gone.signal }, then)
        // Nobody waits any more.
        lock.catch(() => {})
    }
    const common = commonChannel(name)
    const serve = (left: string[]): void => {
        if (gone.signal.aborted) return
        // They may go before they said a word to this host.
        for (const page of left) whenGone(page, () => detach.has(page) || void host.takeUp((other) => other !== page))
        common.onmessage = ({ data }) => {
            const message = data as Announcement
            if (message.type !== "hello") return
            const { page, channel, wishes } = message
            detach.get(page)?.()
            const off = host.attach(channelPort<HostMessage, PageMessage>(name, channel), page, wishes)
            detach.set(page, off)
            whenGone(page, () => {
                if (detach.get(page) === off) detach.delete(page)
                // What it said as it went may be on its way, as when its browser keeps the page.
                setTimeout(off, LAST_WORDS_MS)
            })
        }
        common.postMessage({ type: "host" } satisfies Announcement)
    }
    const living = navigator.locks.query().then(({ held = [] }) => {
        const locks = new Set(held.map((lock) => lock.name))
        return (page: string): boolean => locks.has(pageLock(name, page))
    })
    void host.takeUp(living).then(serve)
    return () => {
        gone.abort()
        common.close()
    }
}
