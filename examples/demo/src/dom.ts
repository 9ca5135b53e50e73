/** The little that this page needs to build and update elements. */

type Attributes = Record<string, string | boolean | ((event: never) => void)>

/** Makes an element: functions become listeners, `true` an attribute without value. */
export function element<K extends keyof HTMLElementTagNameMap>(
    tag: K,
    attributes: Attributes = {},
    ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
    const made = document.createElement(tag)
    for (const [name, value] of Object.entries(attributes)) {
        if (typeof value === "function") made.addEventListener(name, value as EventListener)
        else if (value !== false) made.setAttribute(name, value === true ? "" : value)
    }
    made.append(...children)
    return made
}

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
    const found = document.getElementById(id)
    if (!found) throw new Error(`the page has no #${id}`)
    return found as T
}

/** One of the drawings that index.html defines. */
export function icon(name: string): SVGSVGElement {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use")
    use.setAttribute("href", `#i-${name}`)
    svg.classList.add("icon")
    svg.setAttribute("aria-hidden", "true")
    svg.append(use)
    return svg
}

/** Says something to those who do not see the page. */
export function announce(words: string): void {
    byId("announcer").textContent = words
}

/** Says something to everybody, briefly. */
export function toast(words: string): void {
    const box = byId("toast")
    box.textContent = words
    box.classList.remove("shown")
    // Starts the animation again.
    void box.offsetWidth
    box.classList.add("shown")
    announce(words)
}

/** Shows what others wrote in a field, and keeps the caret beside the same characters. */
export function setValue(field: HTMLInputElement | HTMLTextAreaElement, value: string): void {
    const before = field.value
    if (before === value) return
    const { selectionStart: start, selectionEnd: end } = field
    field.value = value
    if (document.activeElement !== field || start === null || end === null) return
    let same = 0
    while (same < before.length && before[same] === value[same]) same++
    const shift = value.length - before.length
    const move = (at: number): number => (at <= same ? at : Math.max(same, at + shift))
    field.setSelectionRange(move(start), move(end))
}

export const lessMotion = matchMedia("(prefers-reduced-motion: reduce)")
