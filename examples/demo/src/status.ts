/** How safe the document is, in words and with a sign. */

import type { Repo, SyncStatus } from "reconverge"
import { announce, byId, icon } from "./dom.js"
import type { BoardHandle } from "./model.js"

const WORDS: Record<SyncStatus["state"], [icon: string, words: string]> = {
    saved: ["saved", "Saved"],
    saving: ["saving", "Saving…"],
    offline: ["offline", "Offline"],
    refused: ["refused", "Not accepted"],
}

const MEANING: Record<SyncStatus["state"], string> = {
    saved: "All changes are on the relay's disk",
    saving: "The relay has not confirmed all changes yet",
    offline: "Changes are kept in this browser and sent later",
    refused: "The relay does not take these changes",
}

/** Typing makes it save several times a second; the eye need not follow. */
const CALM_MS = 400

export function status(handle: BoardHandle, repo: Repo): void {
    const box = byId("status")
    let shown = ""
    let calm: ReturnType<typeof setTimeout> | undefined

    const show = (): void => {
        calm = undefined
        const { reason, storageError } = handle.status
        const connected = repo.connections.some((connection) => connection.state === "connected")
        const isSaved = handle.status.state === "saved"
        // All that was written is safe, but nobody sees what is written next.
        const state = isSaved && !connected ? "offline" : handle.status.state
        const [sign, words] = WORDS[state]
        box.dataset.state = state
        box.title = reason ? `${MEANING[state]}: ${reason}` : MEANING[state]
        if (words !== shown) box.replaceChildren(icon(sign), words)
        if (words !== shown && (state === "offline" || state === "refused")) announce(box.title)
        shown = words

        const problem = reason ? `The relay does not take these changes: ${reason}` : undefined
        const storage = storageError ? `Nothing is kept in this browser: ${storageError}` : undefined
        byId("problem").textContent = problem ?? storage ?? ""
        byId("problem").hidden = problem === undefined && storage === undefined
    }
    handle.on("status", ({ state }) => {
        if (state === "saving" || state === "saved") calm ??= setTimeout(show, CALM_MS)
        else show()
    })
    repo.on("connection", show)
    show()

    const toggle = byId("offline")
    toggle.addEventListener("click", () => {
        const offline = toggle.getAttribute("aria-checked") !== "true"
        toggle.setAttribute("aria-checked", String(offline))
        toggle.title = offline ? "Go online" : "Go offline"
        if (offline) repo.goOffline()
        else repo.goOnline()
    })
}
