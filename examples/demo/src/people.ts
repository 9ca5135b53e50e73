/** Who is here: everybody's initials, and one's own name and colour, kept in this browser. */

import { Presence } from "reconverge"
import type { TextSelection } from "reconverge/codemirror"
import { byId, element } from "./dom.js"
import type { LiveStroke } from "./drawing.js"
import { keep, kept } from "./kept.js"
import { randomId, type BoardHandle } from "./model.js"

export interface User {
    name: string
    color: string
}

/** What those who have the document open tell each other. */
export interface HereState {
    user: User
    selection: TextSelection | null
    stroke: LiveStroke | null
}

/** Oneself, and the others. */
export interface Here {
    readonly id: string
    readonly presence: Presence<HereState>
}

const COLORS = ["#c2410c", "#b45309", "#4d7c0f", "#0f766e", "#0369a1", "#4f46e5", "#9333ea", "#be185d"]
const FIRST = ["Quiet", "Swift", "Bright", "Gentle", "Bold", "Curious", "Sunny", "Clever", "Merry", "Calm"]
const SECOND = ["Otter", "Heron", "Fox", "Lynx", "Wren", "Badger", "Finch", "Hare", "Newt", "Stork"]
const narrow = matchMedia("(max-width: 480px)")
const NAME_MAX = 32

const any = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T

export function arrive(handle: BoardHandle): Here {
    const id = kept<string>("id") ?? randomId()
    const user = kept<User>("user") ?? { name: `${any(FIRST)} ${any(SECOND)}`, color: any(COLORS) }
    keep("id", id)
    keep("user", user)
    const presence = new Presence<HereState>(handle, {
        state: { user, selection: null, stroke: null },
    })
    const here = { id, presence }
    showPeople(here)
    presence.on("change", () => showPeople(here))
    narrow.addEventListener("change", () => showPeople(here))
    editSelf(here)
    return here
}

function others(here: Here): User[] {
    return [...here.presence.peers.values()].map(({ state }) => {
        const name = typeof state.user?.name === "string" ? state.user.name.slice(0, NAME_MAX) : ""
        const color = String(state.user?.color)
        return { name: name || "Somebody", color: /^#[0-9a-f]{6}$/i.test(color) ? color : "#6b7280" }
    })
}

function showPeople(here: Here): void {
    const list = others(here)
    const self = here.presence.local.user
    byId("me").replaceChildren(avatar(self))
    byId("me").setAttribute("aria-label", `You are ${self.name}. Change name or colour`)
    const places = narrow.matches ? 2 : 5
    const shown = list.slice(0, list.length > places ? places - 1 : places).map(avatar)
    if (list.length > places) {
        const more = list.length - shown.length
        shown.push(element("span", { class: "avatar more", "aria-hidden": "true" }, `+${more}`))
    }
    byId("others").replaceChildren(...shown)
    const names = list.map(({ name }) => name)
    byId("others").setAttribute("aria-label", names.length > 0 ? `Also here: ${names.join(", ")}` : "Nobody else is here")
    const rows = list.map((user) => element("li", {}, avatar(user), user.name))
    byId("people").replaceChildren(...rows)
    byId("alone").hidden = rows.length > 0
}

function avatar({ name, color }: User): HTMLElement {
    const words = name.trim().split(/\s+/)
    const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]]
    const initials = letters.map((word) => [...(word ?? "")][0] ?? "").join("").toUpperCase()
    return element("span", { class: "avatar", title: name, style: `--person: ${color}`, "aria-hidden": "true" }, initials)
}

function editSelf({ presence }: Here): void {
    const become = (changes: Partial<User>): void => {
        const user = { ...presence.local.user, ...changes }
        presence.set({ user })
        keep("user", user)
        byId("me").replaceChildren(avatar(user))
    }
    const name = byId<HTMLInputElement>("name")
    name.value = presence.local.user.name
    name.maxLength = NAME_MAX
    name.addEventListener("input", () => name.value.trim() && become({ name: name.value.trim() }))
    name.addEventListener("blur", () => (name.value = presence.local.user.name))
    name.addEventListener("keydown", (event) => {
        if (event.key === "Enter" && !event.isComposing) byId("self").hidePopover()
    })
    const swatches = COLORS.map((color, index) => {
        const input = element("input", {
            type: "radio",
            name: "person-color",
            "aria-label": `Colour ${index + 1}`,
            checked: color === presence.local.user.color,
            change: () => become({ color }),
        })
        return element("label", { class: "swatch", style: `--swatch: ${color}` }, input)
    })
    byId("person-colors").replaceChildren(...swatches)
}
