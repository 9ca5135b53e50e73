/** Light, dark, or as the system is. */

import { announce, byId } from "./dom.js"

const KEY = "reconverge-demo:theme"
const dark = matchMedia("(prefers-color-scheme: dark)")

export function theme(changed: () => void): void {
    const root = document.documentElement
    const show = (): void => {
        const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches
        byId("theme").setAttribute("aria-pressed", String(isDark))
        changed()
    }
    byId("theme").addEventListener("click", () => {
        const isDark = byId("theme").getAttribute("aria-pressed") === "true"
        const next = isDark ? "light" : "dark"
        root.dataset.theme = next
        // The system's own choice needs no remembering.
        if ((next === "dark") === dark.matches) delete root.dataset.theme
        try {
            if (root.dataset.theme) localStorage.setItem(KEY, next)
            else localStorage.removeItem(KEY)
        } catch {
            // Then it holds for this visit.
        }
        announce(`${next} colours`)
        show()
    })
    dark.addEventListener("change", show)
    try {
        const kept = localStorage.getItem(KEY)
        if (kept === "dark" || kept === "light") root.dataset.theme = kept
    } catch {
        // Private windows may have no storage.
    }
    show()
}
