/**
 * One page for several people: a text, a checklist and a drawing, all in one document. Its address
 * is in the #hash, so whoever has the link has the document.
 */

import { Repo } from "reconverge"
import { Checklist } from "./checklist.js"
import { byId, setValue, toast } from "./dom.js"
import { Drawing } from "./drawing.js"
import { emptyBoard, setTitle, type Board, type BoardHandle } from "./model.js"
import { keep, kept, replica } from "./kept.js"
import { Past } from "./past.js"
import { arrive } from "./people.js"
import { status } from "./status.js"
import { theme } from "./theme.js"
import { Writing } from "./writing.js"

/** The relay that serves this page, or the one that `?relay=` names. */
function relayUrl(): string {
    const asked = new URLSearchParams(location.search).get("relay")
    return asked ?? `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/sync`
}

async function open(repo: Repo): Promise<BoardHandle> {
    const asked = decodeURIComponent(location.hash.slice(1))
    if (asked) return repo.find<Board>(asked)
    const last = kept<string>("last")
    if (last) return repo.find<Board>(last)
    return repo.create<Board>(emptyBoard())
}

/** Whether somebody's link leads to another kind of document. */
function isBoard(doc: unknown): doc is Board {
    const { title, text, items, strokes } = doc as Partial<Record<keyof Board, unknown>>
    const texts = typeof title === "string" && typeof text === "string"
    return texts && typeof items === "object" && items !== null && Array.isArray(strokes)
}

function show(handle: BoardHandle, repo: Repo): void {
    history.replaceState(null, "", `#${handle.url}`)
    keep("last", handle.url)
    const here = arrive(handle)
    const writing = new Writing(handle, here)
    const checklist = new Checklist(handle)
    const drawing = new Drawing(handle, here)
    const title = byId<HTMLInputElement>("title")

    const render = (): void => {
        const board = past.board ?? handle.doc()
        const locked = past.board !== undefined
        checklist.show(board, locked)
        drawing.show(board, locked)
        writing.show(past.board)
        setValue(title, board.title)
        title.readOnly = locked
        document.title = board.title ? `${board.title} – Reconverge` : "Reconverge"
    }
    const past = new Past(handle, render)
    handle.on("change", () => past.board ?? render())
    title.addEventListener("input", () => setTitle(handle, title.value))
    title.addEventListener("keydown", (event) => event.key === "Enter" && title.blur())

    status(handle, repo)
    redraw = () => drawing.redraw()
    undoAndRedo(handle, past)
    links(handle, repo)
    render()
    document.body.classList.add("ready")
}

function undoAndRedo(handle: BoardHandle, past: Past): void {
    const step = async (direction: "undo" | "redo"): Promise<void> => {
        if (past.board) past.close()
        const done = await (direction === "undo" ? handle.undo() : handle.redo())
        if (!done) toast(`There is nothing to ${direction}`)
    }
    const able = (): void => {
        // Not disabled, which would take the focus away from who presses it repeatedly.
        byId("undo").setAttribute("aria-disabled", String(!handle.canUndo))
        byId("redo").setAttribute("aria-disabled", String(!handle.canRedo))
    }
    handle.on("undoable", able)
    able()
    byId("undo").addEventListener("click", () => void step("undo"))
    byId("redo").addEventListener("click", () => void step("redo"))
    document.addEventListener("keydown", (event) => {
        // The editor has taken its own by now; a field would undo its own typing only.
        if (event.defaultPrevented || !(event.ctrlKey || event.metaKey) || event.altKey) return
        const key = event.key.toLowerCase()
        if (key !== "z" && key !== "y") return
        if (event.target instanceof HTMLElement && event.target.id === "name") return
        event.preventDefault()
        void step(key === "y" || event.shiftKey ? "redo" : "undo")
    })
}

function links(handle: BoardHandle, repo: Repo): void {
    const link = new URL(location.href)
    link.searchParams.delete("replica")
    const url = link.href
    // All tabs of a browser are one replica, unless their storage has another name.
    link.searchParams.set("replica", String(Number(replica || 1) + 1))
    byId<HTMLAnchorElement>("replica").href = link.href
    byId("copy").addEventListener("click", () => {
        navigator.clipboard
            .writeText(url)
            .then(() => toast("Link copied"))
            // Pages that came over plain HTTP have no clipboard.
            .catch(() => prompt("The link to this document:", url))
    })
    byId("new").addEventListener("click", async () => {
        const made = await repo.create<Board>(emptyBoard())
        // Stored before the page goes, or nobody would have it.
        await repo.flush()
        location.hash = made.url
    })
    addEventListener("hashchange", () => location.reload())
}

function fail(error: unknown): void {
    const box = byId("failure")
    byId("failure-reason").textContent = error instanceof Error ? error.message : String(error)
    byId("failure-new").addEventListener("click", () => {
        keep("last", undefined)
        location.href = location.pathname + location.search
    })
    byId("failure-retry").addEventListener("click", () => location.reload())
    box.hidden = false
    document.body.classList.add("failed")
}

let redraw = (): void => {}
theme(() => redraw())

try {
    const name = replica ? `demo-${replica}` : "demo"
    const repo = await Repo.open({ relay: relayUrl(), name })
    const handle = await open(repo)
    if (!isBoard(handle.doc())) throw new Error("It was not made by this page.")
    show(handle, repo)
} catch (error) {
    fail(error)
}
