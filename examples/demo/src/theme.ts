/** Light, dark, or as the system is. */

import { announce, byId } from "./dom.js"
import { keep, kept } from "./kept.js"

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
        keep("theme", root.dataset.theme)
        announce(`${next} colours`)
        show()
    })
    dark.addEventListener("change", show)
    const chosen = kept<string>("theme")
    if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen
    show()
}
