// Bounded waiting. Nothing in this suite waits without a limit, and every limit that is
// reached says what was being waited for.

import { setTimeout as pause } from "node:timers/promises"

/** How long a step may take unless the caller knows better, in milliseconds. */
export const STEP_MS = 15_000

const POLL_MS = 10

/**
 * Polls `condition` until it returns something truthy, and returns that.
 *
 * `seen`, if given, is called when the limit is reached and its result goes into the
 * message, so that a failure shows the state that was found instead.
 */
export async function until(what, condition, { ms = STEP_MS, seen } = {}) {
  const deadline = performance.now() + ms
  for (;;) {
    const value = await condition()
    if (value) return value
    if (performance.now() > deadline) {
      const found = seen ? `; found ${JSON.stringify(await seen())}` : ""
      throw new Error(`waited ${ms} ms in vain for: ${what}${found}`)
    }
    await pause(POLL_MS)
  }
}

/** Awaits `promise` for at most `ms`. */
export async function within(what, promise, ms = STEP_MS) {
  let timer
  const limit = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`waited ${ms} ms in vain for: ${what}`)),
      ms
    )
  })
  try {
    return await Promise.race([promise, limit])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Lets `ms` of real time pass. Only for cases that prove that something does *not* happen:
 * everything that must happen is awaited by `until` or `within`.
 */
export const silence = ms => pause(ms)

/** Lets the event loop turn, so that a long synchronous loop does not hold up the sockets. */
export const turn = () => new Promise(resolve => setImmediate(resolve))
