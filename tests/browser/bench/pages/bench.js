// What the bench does in a page with either client, which `start` is.

const now = () => performance.timeOrigin + performance.now()
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

export function serve(start) {
  let client
  let doc
  /** When each character that others typed was seen. */
  let seen = []

  /** One place for all keystrokes of the page, before those of others. */
  const keystroke = i => {
    const at = Math.floor(doc.doc().text.length / 4)
    const before = performance.now()
    doc.type(at, String.fromCharCode(65 + (i % 26)))
    const { length } = doc.doc().text
    if (length === 0) throw new Error("nothing was typed")
    return performance.now() - before
  }

  window.bench = {
    /** Opens a document: milliseconds since the page began to load, until it can be read. */
    async open({ relay, url }) {
      client ??= await start(relay)
      const opened = await client.find(url)
      const { length } = opened.doc().text
      const ms = performance.now()
      doc = opened
      doc.onRemote(patches => {
        const time = now()
        // As an app would.
        if (doc.doc().text === undefined) throw new Error("there is no text")
        for (const { action, value } of patches) {
          if (action === "splice") for (const _ of value) seen.push(time)
        }
      })
      return { ms, length }
    },

    /** How long each keystroke takes until it can be read. */
    async type({ count, everyMs }) {
      const times = []
      const begin = performance.now()
      for (let i = 0; i < count; i++) {
        await sleep(Math.max(0, begin + i * everyMs - performance.now()))
        times.push(keystroke(i))
      }
      return times
    },

    /** How long keystrokes take until they are safe. */
    async store(count) {
      const [stored, saved] = [[], []]
      for (let i = 0; i < count; i++) {
        const begin = performance.now()
        keystroke(i)
        const times = [
          doc.stored().then(() => stored.push(performance.now() - begin)),
          doc.saved().then(() => saved.push(performance.now() - begin)),
        ]
        await Promise.all(times)
        await sleep(50)
      }
      return { stored, saved }
    },

    settled: async () => {
      await doc.stored()
      await doc.saved()
    },

    forgetSeen: () => (seen = []),
    seen: () => seen,

    async digest() {
      const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(doc.doc().text))
      return [...new Uint8Array(hash)].map(byte => byte.toString(16).padStart(2, "0")).join("")
    },

    release() {
      doc.release()
      doc = undefined
    },

    async cycles({ url, count }) {
      for (let i = 0; i < count; i++) {
        const opened = await client.find(url)
        opened.doc()
        opened.release()
      }
    },
  }
}
