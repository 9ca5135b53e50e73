/** The history slider: shows any earlier state, and the way back. */

import type { ChangeInfo, Heads } from "reconverge"
import { announce, byId } from "./dom.js"
import type { BoardHandle, ShownBoard } from "./model.js"

const PLAY_MS = 5_000
const STEP_MS = 40

export class Past {
    readonly #slider = byId<HTMLInputElement>("when")
    #changes: ChangeInfo[] = []
    #wanted: number | undefined
    #seeking = false
    #playing: ReturnType<typeof setInterval> | undefined
    /** The state that is shown instead of the present. */
    board: ShownBoard | undefined

    constructor(
        readonly handle: BoardHandle,
        readonly render: () => void,
    ) {
        const toggle = byId("history")
        toggle.addEventListener("click", () => (this.#open ? this.close() : void this.#show()))
        byId("now").addEventListener("click", () => this.close())
        byId("play").addEventListener("click", () => this.#play())
        this.#slider.addEventListener("input", () => {
            this.#stop()
            this.#seek(Number(this.#slider.value))
        })
        document.addEventListener("keydown", (event) => {
            if (event.key === "Escape" && this.#open) this.close()
        })
    }

    get #open(): boolean {
        return !byId("past").hidden
    }

    close(): void {
        this.#stop()
        this.#wanted = undefined
        this.board = undefined
        byId("past").hidden = true
        byId("history").setAttribute("aria-expanded", "false")
        document.body.classList.remove("in-past")
        this.render()
        announce("Back to the present")
    }

    async #show(): Promise<void> {
        this.#changes = await this.handle.history()
        byId("past").hidden = false
        byId("history").setAttribute("aria-expanded", "true")
        const last = Math.max(0, this.#changes.length - 1)
        this.#slider.max = String(last)
        this.#slider.value = String(last)
        this.#slider.focus()
        this.#seek(last)
    }

    #play(): void {
        if (this.#playing !== undefined) return this.#stop()
        const { length } = this.#changes
        const from = Number(this.#slider.value) >= length - 1 ? 0 : Number(this.#slider.value)
        const step = Math.max(1, Math.round((length * STEP_MS) / PLAY_MS))
        const every = Math.max(STEP_MS, Math.min(400, PLAY_MS / length))
        let at = from
        byId("play").classList.add("playing")
        byId("play").setAttribute("aria-label", "Pause")
        this.#playing = setInterval(() => {
            at = Math.min(length - 1, at + step)
            this.#slider.value = String(at)
            this.#seek(at)
            if (at >= length - 1) this.#stop()
        }, every)
    }

    #stop(): void {
        clearInterval(this.#playing)
        this.#playing = undefined
        byId("play").classList.remove("playing")
        byId("play").setAttribute("aria-label", "Play from the beginning")
    }

    /** Shows the state after this many changes. While one is on its way, only the last wish counts. */
    #seek(index: number): void {
        this.#wanted = index
        this.#label(index)
        if (!this.#seeking) void this.#follow()
    }

    async #follow(): Promise<void> {
        this.#seeking = true
        try {
            while (this.#wanted !== undefined) {
                const index = this.#wanted
                const board = await this.handle.view(headsAfter(this.#changes, index))
                if (this.#wanted === undefined) return
                this.board = board
                document.body.classList.add("in-past")
                this.render()
                if (this.#wanted === index) return
            }
        } finally {
            this.#seeking = false
        }
    }

    #label(index: number): void {
        const change = this.#changes[index]
        const date = change?.time ? new Date(change.time * 1000) : undefined
        const text = date ? words(date) : "At an unknown time"
        byId("when-label").textContent = text
        byId("when-step").textContent = `${index + 1} of ${this.#changes.length}`
        this.#slider.setAttribute("aria-valuetext", `${text}, change ${index + 1}`)
    }
}

function words(date: Date): string {
    const thisYear = date.getFullYear() === new Date().getFullYear()
    return date.toLocaleString(undefined, {
        ...(!thisYear && { year: "numeric" }),
        month: "short",
        day: "numeric",
        hour: "numeric",
        minute: "2-digit",
        second: "2-digit",
    })
}

/** The heads when this change was the last: those that none of the earlier ones depends on. */
function headsAfter(changes: readonly ChangeInfo[], index: number): Heads {
    const heads = new Set<string>()
    for (const { hash, deps } of changes.slice(0, index + 1)) {
        for (const dep of deps) heads.delete(dep)
        heads.add(hash)
    }
    return [...heads]
}
