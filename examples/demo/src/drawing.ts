/** The drawing board. A stroke is shown to others while it is drawn, and kept when it is done. */

import { byId, element } from "./dom.js"
import type { BoardHandle, ShownBoard, Stroke } from "./model.js"
import type { Here } from "./people.js"

/** What others see of a stroke that is not done. */
export type LiveStroke = Omit<Stroke, "by">

const COLORS = ["ink", "red", "amber", "green", "blue", "violet"]
const WIDTH = 1 / 160
const POINTS_MAX = 2_000
/** Of a stroke that is not done, others see its end. */
const LIVE_POINTS_MAX = 300

export class Drawing {
    readonly #canvas = byId<HTMLCanvasElement>("canvas")
    readonly #clear = byId<HTMLButtonElement>("clear")
    #strokes: readonly Stroke[] | undefined
    #locked = false
    #color = "ink"
    /** The stroke being drawn here: x and y in turn, from 0 to 1. */
    #points: number[] | undefined
    #frame = 0

    constructor(
        readonly handle: BoardHandle,
        readonly here: Here,
    ) {
        this.#palette()
        const canvas = this.#canvas
        canvas.addEventListener("pointerdown", (event) => this.#start(event))
        canvas.addEventListener("pointermove", (event) => {
            const events = event.getCoalescedEvents?.() ?? []
            for (const each of events.length > 0 ? events : [event]) this.#add(each)
        })
        canvas.addEventListener("pointerup", () => this.#end())
        canvas.addEventListener("pointercancel", () => this.#end())
        this.#clear.addEventListener("click", () => this.#clearOwn())
        new ResizeObserver(() => this.#draw()).observe(canvas)
        here.presence.on("change", () => this.#drawSoon())
    }

    show(board: ShownBoard, locked: boolean): void {
        if (board.strokes === this.#strokes && locked === this.#locked) return
        this.#locked = locked
        this.#canvas.classList.toggle("locked", locked)
        const own = board.strokes.filter((stroke) => stroke.by === this.here.id).length
        this.#clear.disabled = locked || own === 0
        const count = board.strokes.length === 1 ? "1 stroke" : `${board.strokes.length} strokes`
        this.#canvas.setAttribute("aria-label", `Drawing board, ${count}`)
        this.#strokes = board.strokes
        this.#drawSoon()
    }

    /** Draws again, in the colours of the theme. */
    redraw(): void {
        this.#drawSoon()
    }

    #palette(): void {
        const choices = COLORS.map((color) => {
            const input = element("input", {
                type: "radio",
                name: "color",
                value: color,
                "aria-label": color,
                checked: color === this.#color,
                change: () => (this.#color = color),
            })
            return element("label", { class: "swatch", style: `--swatch: var(--draw-${color})` }, input)
        })
        byId("palette").append(...choices)
    }

    #start(event: PointerEvent): void {
        if (this.#locked || event.button !== 0) return
        event.preventDefault()
        this.#canvas.setPointerCapture(event.pointerId)
        this.#points = []
        this.#add(event)
    }

    #add(event: PointerEvent): void {
        const points = this.#points
        if (!points || points.length >= POINTS_MAX * 2) return
        const box = this.#canvas.getBoundingClientRect()
        const x = clamp((event.clientX - box.left) / box.width)
        const y = clamp((event.clientY - box.top) / box.height)
        const [lastX, lastY] = points.slice(-2)
        if (lastX !== undefined && lastY !== undefined) {
            const moved = Math.hypot((x - lastX) * box.width, (y - lastY) * box.height)
            if (moved < 1.5) return
        }
        points.push(x, y)
        const live = { color: this.#color, points: pack(points.slice(-2 * LIVE_POINTS_MAX)) }
        this.here.presence.set({ stroke: live })
        this.#drawSoon()
    }

    #end(): void {
        const points = this.#points
        if (!points) return
        this.#points = undefined
        const stroke = { by: this.here.id, color: this.#color, points: pack(points) }
        this.handle.change((board) => void board.strokes.push(stroke))
        this.here.presence.set({ stroke: null })
    }

    #clearOwn(): void {
        this.handle.change((board) => {
            for (let index = board.strokes.length - 1; index >= 0; index--) {
                if (board.strokes[index]!.by === this.here.id) board.strokes.splice(index, 1)
            }
        })
    }

    #drawSoon(): void {
        this.#frame ||= requestAnimationFrame(() => this.#draw())
    }

    /** The strokes that are being drawn, here and elsewhere. */
    #live(): LiveStroke[] {
        const states = [...this.here.presence.peers.values()].map(({ state }) => state.stroke)
        const live = states.filter((stroke) => stroke?.points instanceof Uint8Array) as LiveStroke[]
        if (this.#points) live.push({ color: this.#color, points: pack(this.#points) })
        return live
    }

    #draw(): void {
        this.#frame = 0
        const canvas = this.#canvas
        const context = canvas.getContext("2d")
        if (!context) return
        const { clientWidth, clientHeight } = canvas
        const scale = devicePixelRatio || 1
        canvas.width = Math.round(clientWidth * scale)
        canvas.height = Math.round(clientHeight * scale)
        context.lineCap = context.lineJoin = "round"
        context.lineWidth = Math.max(1, canvas.width * WIDTH)
        const style = getComputedStyle(canvas)
        const draw = ({ color, points }: LiveStroke): void => {
            const known = COLORS.includes(color) ? color : "ink"
            context.strokeStyle = style.getPropertyValue(`--draw-${known}`)
            trace(context, unpack(points))
        }
        const strokes = this.#strokes ?? []
        const live = this.#locked ? [] : this.#live()
        for (const stroke of [...strokes, ...live]) draw(stroke)
        byId("strokes-empty").hidden = strokes.length + live.length > 0
    }
}

/** A line through the middles of what the pointer passed, so that it has no corners. */
function trace(context: CanvasRenderingContext2D, points: number[]): void {
    const { width, height } = context.canvas
    const at = (index: number): [number, number] => [
        (points[index * 2] ?? 0) * width,
        (points[index * 2 + 1] ?? 0) * height,
    ]
    const count = points.length / 2
    if (count === 0) return
    context.beginPath()
    context.moveTo(...at(0))
    for (let index = 1; index < count - 1; index++) {
        const [x, y] = at(index)
        const [nextX, nextY] = at(index + 1)
        context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2)
    }
    context.lineTo(...at(count - 1))
    context.stroke()
}

const clamp = (part: number): number => Math.min(1, Math.max(0, part))

function pack(points: number[]): Uint8Array {
    const bytes = new DataView(new ArrayBuffer(points.length * 2))
    points.forEach((part, index) => bytes.setUint16(index * 2, Math.round(part * 65_535)))
    return new Uint8Array(bytes.buffer)
}

function unpack(bytes: Uint8Array): number[] {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    const count = Math.floor(bytes.byteLength / 4) * 2
    return Array.from({ length: count }, (_, index) => view.getUint16(index * 2) / 65_535)
}
