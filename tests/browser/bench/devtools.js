// What only the browser knows: how long the tasks of a page's thread took, by the clock and of the
// processor, and memory.

import { readFileSync } from "node:fs"

/** The tasks of the page's thread while `body` ran, in milliseconds. */
export async function tasksOfPage(page, body) {
  const browser = page.context().browser()
  await browser.startTracing(page, { categories: ["toplevel", "__metadata"] })
  let value
  let trace
  try {
    value = await body()
  } finally {
    trace = await browser.stopTracing()
  }
  const { traceEvents } = JSON.parse(trace.toString())
  return { value, tasks: { task: longest(traceEvents, "dur"), cpu: longest(traceEvents, "tdur") } }
}

/** Of the busiest page: there is only one that does something. */
function longest(events, field) {
  const main = new Set(
    events
      .filter(({ name, args }) => name === "thread_name" && args.name === "CrRendererMain")
      .map(({ pid, tid }) => `${pid} ${tid}`)
  )
  let most = 0
  for (const event of events) {
    if (event.ph !== "X" || !main.has(`${event.pid} ${event.tid}`)) continue
    most = Math.max(most, (event[field] ?? 0) / 1000)
  }
  return most
}

/** Bytes that scripts of the page and of its workers hold, each, after a collection. */
export async function heaps(page) {
  const session = await page.context().newCDPSession(page)
  try {
    const here = await used(session)
    const workers = []
    const attached = new Map()
    session.on("Target.attachedToTarget", ({ sessionId, targetInfo }) => attached.set(sessionId, targetInfo))
    await session.send("Target.setAutoAttach", {
      autoAttach: true,
      waitForDebuggerOnStart: false,
      flatten: false,
    })
    await new Promise(resolve => setTimeout(resolve, 200))
    for (const [sessionId, { type }] of attached) {
      if (type === "worker") workers.push(await used(through(session, sessionId)))
    }
    return { page: here, workers }
  } finally {
    await session.detach()
  }
}

async function used(session) {
  for (let i = 0; i < 3; i++) await session.send("HeapProfiler.collectGarbage")
  const { usedSize, backingStorageSize = 0 } = await session.send("Runtime.getHeapUsage")
  return { usedSize, backingStorageSize }
}

/** A session with a target behind another session. */
function through(session, sessionId) {
  let id = 0
  return {
    send: (method, params = {}) =>
      new Promise((resolve, reject) => {
        const call = ++id
        const hear = event => {
          const answer = JSON.parse(event.message)
          if (event.sessionId !== sessionId || answer.id !== call) return
          session.off("Target.receivedMessageFromTarget", hear)
          if (answer.error) reject(new Error(answer.error.message))
          else resolve(answer.result)
        }
        session.on("Target.receivedMessageFromTarget", hear)
        const message = JSON.stringify({ id: call, method, params })
        session.send("Target.sendMessageToTarget", { sessionId, message }).catch(reject)
      }),
  }
}

/** The private memory of the page's process, with its workers and modules; Linux only. */
export async function residentBytes(page) {
  const session = await page.context().browser().newBrowserCDPSession()
  const { processInfo } = await session.send("SystemInfo.getProcessInfo")
  await session.detach()
  const sizes = processInfo
    .filter(({ type }) => type === "renderer")
    .map(({ id }) => privateBytes(id))
  return Math.max(0, ...sizes)
}

function privateBytes(pid) {
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8")
    const kib = [...rollup.matchAll(/^Private_(?:Clean|Dirty):\s+(\d+) kB$/gm)].map(([, kib]) => Number(kib))
    return kib.reduce((sum, kib) => sum + kib, 0) * 1024
  } catch {
    return 0
  }
}
