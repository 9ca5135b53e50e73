// The rig itself: what the other files rely on.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { story } from "./lib/world.js"

/** Resolves in the page when a WebSocket to `url` opened or failed. */
const reach = (page, url) =>
  page.evaluate(
    url =>
      new Promise(resolve => {
        const socket = new WebSocket(url)
        socket.onopen = () => {
          socket.close()
          resolve("open")
        }
        socket.onerror = () => resolve("refused")
      }),
    url
  )

story("a page reaches the relay, which is killed and comes back on its port", async world => {
  world.expect(/WebSocket connection to .* failed/)
  const relay = await world.relay()
  const page = await world.page(`${(await world.site()).url}/blank.html`)
  const { url } = relay
  assert.equal(await reach(page, url), "open")
  await relay.kill()
  assert.equal(await reach(page, url), "refused")
  await relay.start()
  assert.equal(relay.url, url)
  assert.equal(await reach(page, url), "open")
})

story("a site comes back on its port, and errors of pages are seen", async world => {
  const site = await world.site()
  const { url } = site
  const page = await world.page(`${url}/blank.html`)
  const fetched = () => page.evaluate(() => fetch("/blank.html").then(({ status }) => status, String))
  world.expect(/ERR_CONNECTION_REFUSED/)
  await site.stop()
  assert.equal(await fetched(), "TypeError: Failed to fetch")
  await site.start()
  assert.equal(site.url, url)
  assert.equal(await fetched(), 200)
  await page.evaluate(() => console.error("said on purpose"))
  await page.evaluate(() => {
    setTimeout(() => {
      throw new Error("thrown on purpose")
    })
  })
  await until("both errors", () => world.unexpected.length === 2)
  world.expect(/on purpose/)
})
