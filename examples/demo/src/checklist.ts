/** The checklist: add, edit, check, delete, and reorder by dragging or with the arrow keys. */

import { announce, byId, element, icon, lessMotion, setValue } from "./dom.js"
import { addItem, moveItem, setItemText, sortedItems, type BoardHandle, type ListedItem, type ShownBoard } from "./model.js"

interface Row {
    root: HTMLLIElement
    grip: HTMLButtonElement
    check: HTMLInputElement
    text: HTMLTextAreaElement
    remove: HTMLButtonElement
}

export class Checklist {
    readonly #list = byId("items")
    readonly #form = byId<HTMLFormElement>("add")
    readonly #rows = new Map<string, Row>()
    #shown: ShownBoard["items"] | undefined
    #dragged: string | undefined
    #locked = false

    constructor(readonly handle: BoardHandle) {
        const field = byId<HTMLInputElement>("add-text")
        this.#form.addEventListener("submit", (event) => {
            event.preventDefault()
            const text = field.value.trim()
            if (text === "" || this.#locked) return
            const id = addItem(handle, text)
            field.value = ""
            this.#rows.get(id)?.root.scrollIntoView({ block: "nearest" })
            announce(`Added ${text}`)
        })
    }

    show(board: ShownBoard, locked: boolean): void {
        if (board.items === this.#shown && locked === this.#locked) return
        this.#shown = board.items
        this.#locked = locked
        const items = sortedItems(board)
        for (const [id, row] of this.#rows) {
            if (board.items[id]) continue
            if (row.root.contains(document.activeElement)) byId("add-text").focus()
            row.root.remove()
            this.#rows.delete(id)
        }
        const before = this.#places()
        const focused = document.activeElement as HTMLElement | null
        items.forEach((item, index) => {
            const row = this.#row(item.id)
            const there = this.#list.children[index]
            if (there !== row.root) this.#list.insertBefore(row.root, there ?? null)
            this.#fill(row, item)
        })
        // A row that was moved in the page has lost it.
        if (focused && focused !== document.activeElement && this.#list.contains(focused)) focused.focus()
        this.#slide(before)

        const done = items.filter((item) => item.done).length
        byId("items-count").textContent = items.length > 0 ? `${done} of ${items.length} done` : ""
        byId("items-empty").hidden = items.length > 0
        for (const control of this.#form.elements) (control as HTMLInputElement).disabled = locked
    }

    #fill(row: Row, item: ListedItem): void {
        row.root.classList.toggle("done", item.done)
        row.check.checked = item.done
        row.check.disabled = row.grip.disabled = row.remove.disabled = this.#locked
        row.text.readOnly = this.#locked
        setValue(row.text, item.text)
        const name = item.text || "item without text"
        row.check.setAttribute("aria-label", `Done: ${name}`)
        row.grip.setAttribute("aria-label", `Move ${name}: arrow keys, or drag`)
        row.remove.setAttribute("aria-label", `Delete ${name}`)
    }

    #row(id: string): Row {
        const known = this.#rows.get(id)
        if (known) return known
        const { handle } = this
        const check = element("input", {
            type: "checkbox",
            change: () => handle.change((board) => void (board.items[id]!.done = check.checked)),
        })
        // Not an input, which would show one line of it.
        const text: HTMLTextAreaElement = element("textarea", {
            class: "item-text",
            rows: "1",
            "aria-label": "Item",
            autocomplete: "off",
            input: () => {
                if (text.value.includes("\n")) setValue(text, text.value.replace(/\s*\n\s*/g, " "))
                setItemText(handle, id, text.value)
            },
            keydown: (event: KeyboardEvent) => {
                if (event.key === "Enter" && !event.isComposing) {
                    event.preventDefault()
                    byId("add-text").focus()
                }
                if (event.altKey) this.#moveByKey(id, event)
            },
        })
        const remove = element(
            "button",
            {
                type: "button",
                class: "item-remove",
                title: "Delete",
                click: () => {
                    announce(`Deleted ${text.value}`)
                    const next = this.#rows.get(this.#neighbour(id) ?? "")
                    handle.change((board) => void delete board.items[id])
                    ;(next?.remove ?? byId("add-text")).focus()
                },
            },
            icon("cross"),
        )
        const grip = element(
            "button",
            {
                type: "button",
                class: "item-grip",
                title: "Drag, or use the arrow keys",
                keydown: (event: KeyboardEvent) => this.#moveByKey(id, event),
                pointerdown: (event: PointerEvent) => this.#drag(id, event),
            },
            icon("grip"),
        )
        const root = element("li", { class: "item" }, grip, check, text, remove)
        const row = { root, grip, check, text, remove }
        this.#rows.set(id, row)
        return row
    }

    #neighbour(id: string): string | undefined {
        const items = sortedItems(this.handle.doc())
        const index = items.findIndex((item) => item.id === id)
        return (items[index + 1] ?? items[index - 1])?.id
    }

    #moveByKey(id: string, event: KeyboardEvent): void {
        const by = event.key === "ArrowUp" ? -1 : event.key === "ArrowDown" ? 1 : 0
        if (by === 0 || this.#locked) return
        event.preventDefault()
        const items = sortedItems(this.handle.doc())
        const index = items.findIndex((item) => item.id === id) + by
        if (index < 0 || index >= items.length) return
        const { activeElement } = document
        moveItem(this.handle, id, index)
        ;(activeElement as HTMLElement | null)?.focus()
        announce(`${items[index - by]?.text}: now ${index + 1} of ${items.length}`)
    }

    #drag(id: string, event: PointerEvent): void {
        const row = this.#rows.get(id)
        if (!row || this.#locked || event.button !== 0) return
        row.grip.setPointerCapture(event.pointerId)
        row.root.classList.add("dragged")
        this.#dragged = id
        let start = event.clientY
        const follow = ({ clientY }: PointerEvent): void => {
            const rows = [...this.#list.children] as HTMLElement[]
            const from = rows.indexOf(row.root)
            const middle = (at: number): number => {
                const box = rows[at]!.getBoundingClientRect()
                return box.top + box.height / 2
            }
            let to = from
            while (to > 0 && clientY < middle(to - 1)) to--
            while (to < rows.length - 1 && clientY > middle(to + 1)) to++
            if (to !== from) {
                const top = row.root.offsetTop
                moveItem(this.handle, id, to)
                start += row.root.offsetTop - top
            }
            row.root.style.translate = `0 ${clientY - start}px`
        }
        const drop = (): void => {
            this.#dragged = undefined
            row.root.classList.remove("dragged")
            row.root.style.translate = ""
            row.grip.removeEventListener("pointermove", follow)
        }
        row.grip.addEventListener("pointermove", follow)
        row.grip.addEventListener("lostpointercapture", drop, { once: true })
    }

    #places(): Map<string, number> {
        return new Map([...this.#rows].map(([id, { root }]) => [id, root.offsetTop]))
    }

    /** Lets rows glide from where they were. */
    #slide(before: Map<string, number>): void {
        if (lessMotion.matches) return
        for (const [id, { root }] of this.#rows) {
            const from = before.get(id)
            if (from === undefined || id === this.#dragged || from === root.offsetTop) continue
            const offset = from - root.offsetTop
            root.animate([{ transform: `translateY(${offset}px)` }, { transform: "none" }], {
                duration: 180,
                easing: "cubic-bezier(.2,.8,.2,1)",
            })
        }
    }
}
