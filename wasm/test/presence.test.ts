/** Who is present in a document, as two of them tell each other. */

import assert from "node:assert/strict"
import { test } from "node:test"
import { Presence, type PresenceChannel } from "../js/presence.js"
import type { EphemeralMessage } from "../js/types.js"

/** All who have a document open, each by the name of its browser, which may become another. */
class Room {
    #heard = new Set<{ peerId: string; hear: (message: EphemeralMessage) => void }>()

    enter(peerId: string): PresenceChannel & { peerId: string } {
        const member = { peerId, hear: (_: EphemeralMessage): void => {} }
        this.#heard.add(member)
        const on = (event: string, listener: (message: never) => void): (() => void) => {
            if (event === "ephemeral-message") member.hear = listener as typeof member.hear
            return () => {}
        }
        const broadcast = (message: unknown): void => {
            for (const other of this.#heard) if (other !== member) other.hear({ senderId: member.peerId, message })
        }
        return Object.assign(member, { on, broadcast })
    }
}

test("a tab whose browser is called otherwise now is who it was", (t) => {
    t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1_000_000 })
    const room = new Room()
    const ann = new Presence(room.enter("ann"), { state: { at: "" } })
    const channel = room.enter("bob's first tab")
    const bob = new Presence(channel, { state: { at: "title" } })
    t.mock.timers.tick(1_000)
    const told = (): unknown => [...ann.peers.values()].map(({ peerId, state }) => [peerId, state])
    const [name] = ann.peers.keys()
    assert.deepEqual(told(), [["bob's first tab", { at: "title" }]])

    // The other tab goes. What is heard of this one first is that it is still here.
    channel.peerId = "bob's second tab"
    channel.broadcast({ __presence: { type: "heartbeat", tab: name!.split("/").at(-1) } })
    assert.deepEqual(told(), [["bob's second tab", { at: "title" }]])
    channel.peerId = "bob's third tab"
    bob.set({ at: "text" })
    t.mock.timers.tick(1_000)
    assert.deepEqual(told(), [["bob's third tab", { at: "text" }]])
    assert.deepEqual([...ann.peers.keys()], [name])

    const other = new Presence(channel, { state: { at: "list" } })
    t.mock.timers.tick(1_000)
    assert.equal(ann.peers.size, 2, "two tabs of one browser are two")
    other.stop()
    bob.stop()
    assert.deepEqual(told(), [])
    ann.stop()
})
