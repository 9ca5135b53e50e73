// One edit, and at once the tab goes: what people do who type and leave. What is then not in
// IndexedDB is lost. Measured in each browser beside y-indexeddb, in the same run and in the same way.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { BROWSERS, goBack, leave } from "./lib/browsers.js"
import { bundle } from "./lib/bundle.js"
import { create, find, open, show } from "./lib/doc.js"
import { story } from "./lib/world.js"

/** Edits for each way to go. */
const ROUNDS = Number(process.env.LEAVING_ROUNDS ?? 3)

const YJS = `<!doctype html>
<meta charset="utf-8">
<title>yjs</title>
<link rel="icon" href="data:,">
<script type="module" src="/yjs.js"></script>
`

const script = bundle("pages/yjs.js")

/** What is compared: its page, how it opens what is stored, an edit, and which edits it shows. */
const SUBJECTS = {
  ours: {
    page: "/plain.html",
    loaded: () => window.reconverge !== undefined,
    open: async url => {
      window.repo = await reconverge.Repo.open()
      window.doc = url ? await repo.find(url) : await repo.create({ edits: [] })
      await repo.flush()
      return doc.url
    },
    edit: n => doc.change(draft => draft.edits.push(n)),
    shows: () => [...doc.doc().edits],
  },
  "y-indexeddb": {
    page: "/yjs.html",
    loaded: () => window.openYjs !== undefined,
    open: () => openYjs(),
    edit: n => edits.push([n]),
    shows: () => edits.toArray(),
  },
}

/** What Chromium's debugger does to a tab right after an edit. */
const debugged = command => async (browser, tab, site, edit, n) => {
  const debug = await tab.context().newCDPSession(tab)
  await tab.evaluate(edit, n)
  await command(debug, tab)
  if (!tab.isClosed()) await tab.close()
  return browser.tab()
}

/** How a tab goes after an edit; gives the tab that goes on. */
const WAYS = {
  navigate: async (browser, tab, site, edit, n) => {
    await leave(tab, edit, n, `${site.url}/blank.html`)
    return tab
  },
  reload: async (browser, tab, site, edit, n) => {
    await leave(tab, edit, n)
    return tab
  },
  close: async (browser, tab, site, edit, n) => {
    await tab.evaluate(edit, n)
    await tab.close()
    return browser.tab()
  },
}

const CHROMIUM_WAYS = {
  ...WAYS,
  crash: debugged(async (debug, tab) => {
    const crashed = tab.waitForEvent("crash")
    debug.send("Page.crash").catch(() => {}) // the answer dies with the page
    await crashed
  }),
  freeze: debugged(debug => debug.send("Page.setWebLifecycleState", { state: "frozen" })),
}

const waysOf = kind => (kind === "Chromium" ? CHROMIUM_WAYS : WAYS)

async function goTo(tab, site, { page, loaded, open }, url) {
  await tab.goto(`${site.url}${page}`)
  await until("the page's script", () => tab.evaluate(loaded))
  return tab.evaluate(open, url)
}

/** What another tab had to take over may come a moment after the document, and is not lost. */
const comesBack = (tab, subject, n) =>
  until(`edit ${n}`, async () => (await tab.evaluate(subject.shows)).includes(n), { ms: 5_000 }).then(
    () => true,
    () => false
  )

/** Edits that were lost, by how the tab went that was the only one. */
async function lost(kind, browser, site, subject) {
  let tab = await browser.tab()
  const url = await goTo(tab, site, subject)
  const lost = {}
  let n = 0
  for (const [way, go] of Object.entries(waysOf(kind))) {
    lost[way] = 0
    for (let round = 0; round < ROUNDS; round++) {
      n += 1
      tab = await go(browser, tab, site, subject.edit, n)
      await goTo(tab, site, subject, url)
      if (!(await comesBack(tab, subject, n))) lost[way] += 1
    }
  }
  await tab.close()
  return lost
}

/**
 * The same of a tab beside another: of the one that runs the engine for both, which the other then
 * takes over, or of the one that does not.
 */
async function lostBeside(kind, browser, site, whose) {
  const subject = SUBJECTS.ours
  let host = await browser.tab()
  const url = await goTo(host, site, subject)
  let guest = await browser.tab()
  await goTo(guest, site, subject, url)
  const lost = {}
  let n = 0
  for (const [way, go] of Object.entries(waysOf(kind))) {
    // To the engine they are the same as a reload.
    if (way === "navigate" || way === "freeze") continue
    lost[way] = 0
    for (let round = 0; round < ROUNDS; round++) {
      n += 1
      if (whose === "host") {
        const back = await go(browser, host, site, subject.edit, n)
        ;[host, guest] = [guest, back]
      } else {
        guest = await go(browser, guest, site, subject.edit, n)
      }
      await goTo(guest, site, subject, url)
      if (!(await comesBack(guest, subject, n))) lost[way] += 1
    }
  }
  await host.close()
  await guest.close()
  return lost
}

const sum = lost => Object.values(lost).reduce((a, b) => a + b)
const shown = lost => Object.entries(lost).map(([way, n]) => `${way} ${n}`).join(", ")

for (const kind of BROWSERS) {
  story(`${kind}: an edit, and its tab goes at once`, async world => {
    const site = await world.site({ "/yjs.html": YJS, "/yjs.js": await script })
    const browser = await world.browser(kind)
    const results = {
      "y-indexeddb": await lost(kind, browser, site, SUBJECTS["y-indexeddb"]),
      "ours, the only tab": await lost(kind, browser, site, SUBJECTS.ours),
      "ours, the host beside another": await lostBeside(kind, browser, site, "host"),
      "ours, beside the host": await lostBeside(kind, browser, site, "guest"),
    }
    for (const [what, lost] of Object.entries(results)) world.tell(`${what}: lost of ${ROUNDS} each: ${shown(lost)}`)
    const { "y-indexeddb": theirs, ...ours } = results
    for (const [what, lost] of Object.entries(ours)) {
      assert.ok(sum(lost) <= Math.max(sum(theirs), 1), `${what}: ${shown(lost)}`)
    }
  }, { ms: 600_000 })
}

// A browser may keep a page as it is, for going back to it. WebKit does so with a Worker's open
// transaction, and everybody else waited for it.
for (const kind of BROWSERS) {
  story(`${kind}: a page that is left and come back to`, async world => {
    const site = await world.site()
    const browser = await world.browser(kind)
    const { ours } = SUBJECTS
    const first = await browser.tab()
    const url = await goTo(first, site, ours)
    const expected = []
    const shows = tab => until(`${expected.length} edits`, async () => (await tab.evaluate(ours.shows)).length === expected.length)
    let kept = 0
    for (let n = 0; n < 10 * ROUNDS; n += 3) {
      expected.push(n)
      await leave(first, ours.edit, n, `${site.url}/blank.html`)
      // It was the host's, or is none again, while the other one lives.
      const second = await browser.tab()
      await goTo(second, site, ours, url)
      await shows(second)
      expected.push(n + 1)
      await second.evaluate(ours.edit, n + 1)
      if (await goBack(first)) kept += 1
      else await goTo(first, site, ours, url)
      await shows(first)
      expected.push(n + 2)
      await first.evaluate(ours.edit, n + 2)
      await shows(second)
      for (const tab of [first, second]) assert.deepEqual((await tab.evaluate(ours.shows)).sort((a, b) => a - b), expected)
      await second.close()
    }
    world.tell(`kept ${kept} times`)
    if (kind === "WebKitGTK") assert.ok(kept > 0, "no page was kept")
  }, { ms: 300_000 })
}

for (const kind of BROWSERS) {
  story(`${kind}: a document is made, and its tab goes to its page at once`, async world => {
    const site = await world.site()
    const browser = await world.browser(kind)
    const tab = await browser.tab()
    await goTo(tab, site, SUBJECTS.ours)
    for (let n = 0; n < 2 * ROUNDS; n++) {
      await tab.evaluate(n => {
        repo.create({ edits: [n] }).then(made => (location.href = `/plain.html?${n}#${made.url}`))
      }, n)
      const arrived = () => tab.evaluate(n => location.search === `?${n}` && window.reconverge !== undefined, n)
      await until("the page of the document", () => arrived().catch(() => false))
      const found = await tab.evaluate(async () => {
        window.repo = await reconverge.Repo.open()
        const doc = await repo.find(location.hash.slice(1)).catch(error => error.code)
        return doc.doc?.().edits ?? doc
      })
      assert.deepEqual(found, [n])
    }
  }, { ms: 120_000 })
}

// As a picture that is dropped into a document. Chromium keeps large values apart from others.
for (const kind of BROWSERS) {
  story(`${kind}: 15 MB are put into a document, and its tab goes at once`, async world => {
    const site = await world.site()
    const browser = await world.browser(kind)
    const put = n => doc.change(draft => (draft.picture = new Uint8Array(15_000_000).fill(n)))
    let tab = await browser.tab()
    const url = await goTo(tab, site, SUBJECTS.ours)
    for (let n = 1; n <= ROUNDS; n++) {
      await leave(tab, put, n, `${site.url}/blank.html`)
      if (n % 2) tab = await browser.tab()
      await goTo(tab, site, SUBJECTS.ours, url)
      assert.deepEqual(await tab.evaluate(() => [doc.doc().picture.length, doc.doc().picture.at(-1)]), [15_000_000, n])
    }
  }, { ms: 120_000 })
}

story("an edit is kept while somebody is busy with what another tab left", async world => {
  const site = await world.site()
  const context = await world.context()
  const [first, second] = [await world.plain(site, context), await world.plain(site, context)]
  const busy = await context.newPage()
  await busy.goto(`${site.url}/blank.html`)
  await open(first)
  const url = await create(first, { first: 0 })
  // Each tab's entries are in an object store of its own, if there are enough; names are drawn.
  const edited = async (page, key) => {
    const before = await entries(busy)
    await page.evaluate(key => void doc.change(d => (d[key] = 1)), key)
    const news = async () => (await entries(busy)).find(entry => !before.includes(entry))
    return JSON.parse(await until("an entry", news)).store
  }
  const ofFirst = await edited(first, "first")
  for (let ofSecond = ofFirst; ofSecond === ofFirst; ) {
    await second.reload()
    await second.waitForFunction(() => window.reconverge)
    await open(second)
    await find(second, url)
    ofSecond = await edited(second, "second")
  }
  await busy.evaluate(async store => {
    const opening = indexedDB.open("reconverge:journal")
    const database = await new Promise(resolve => (opening.onsuccess = () => resolve(opening.result)))
    const reads = database.transaction(store).objectStore(store)
    const next = () => (window.isDone ? database.close() : (reads.count().onsuccess = next))
    next()
  }, ofFirst)
  await first.close()
  await leave(second, () => doc.change(d => (d.last = "kept")), undefined, `${site.url}/blank.html`)
  await busy.evaluate(() => (window.isDone = true))
  await second.goto(`${site.url}/plain.html`)
  await second.waitForFunction(() => window.reconverge)
  await open(second)
  await find(second, url)
  assert.equal((await show(second)).last, "kept")
})

/** What is in the journal, each entry as a text. */
const entries = page =>
  page.evaluate(async () => {
    const opening = indexedDB.open("reconverge:journal")
    const database = await new Promise(resolve => (opening.onsuccess = () => resolve(opening.result)))
    const all = []
    for (const store of database.objectStoreNames) {
      const reading = database.transaction(store).objectStore(store).getAllKeys()
      const keys = await new Promise(resolve => (reading.onsuccess = () => resolve(reading.result)))
      for (const key of keys) all.push(JSON.stringify({ store, key }))
    }
    database.close()
    return all
  })

for (const event of ["beforeunload", "pagehide", "visibilitychange"]) {
  story(`chromium: an edit that a page makes on ${event}, as it goes, is kept`, async world => {
    const site = await world.site()
    const tab = await world.plain(site)
    await open(tab)
    const url = await create(tab, { edits: [] })
    await tab.evaluate(event => {
      const target = event === "visibilitychange" ? document : window
      target.addEventListener(event, () => doc.change(draft => draft.edits.push(event)))
    }, event)
    await tab.reload()
    await tab.waitForFunction(() => window.reconverge !== undefined)
    await open(tab)
    await find(tab, url)
    await until("the edit", async () => (await show(tab)).edits.includes(event), { seen: () => show(tab) })
  })
}
