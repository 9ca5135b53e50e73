// What the page's thread does, from the first moment: gaps between frames, and how late a timer is.

const TIMER_MS = 4

let frames = []
let late = 0
let tasks = []
let lastTimer = performance.now()

const frame = time => {
  frames.push(time)
  requestAnimationFrame(frame)
}
requestAnimationFrame(frame)

setInterval(() => {
  const time = performance.now()
  late = Math.max(late, time - lastTimer - TIMER_MS)
  lastTimer = time
}, TIMER_MS)

new PerformanceObserver(list => {
  for (const { duration } of list.getEntries()) tasks.push(duration)
}).observe({ type: "longtask", buffered: true })

window.meter = {
  begin() {
    frames = []
    late = 0
    tasks = []
    lastTimer = performance.now()
  },

  /** Waits until what was blocked is counted. */
  async end() {
    await new Promise(resolve => setTimeout(resolve, 100))
    const gaps = frames.slice(1).map((time, i) => time - frames[i])
    return { gaps, late, tasks }
  },
}
