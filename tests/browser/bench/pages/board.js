// A board of 1,000 cards, and what it costs to change one field of one card: with nobody who looks, and
// with a component of React for each card; beside Automerge and Yjs, which store and sync nothing here.

import * as Automerge from "@automerge/automerge"
import { createElement as h, Suspense } from "react"
import { createRoot } from "react-dom/client"
import * as Y from "yjs"
import { ImmutableString, Repo } from "../../../../wasm/dist/browser.js"
import { RepoProvider, useDocument } from "../../../../wasm/dist/react.js"

const CARDS = 1000

const keyOf = at => `card${(at * 7919) % 100_000}`

/** @param fixed makes a string that is replaced as a whole. */
function board(fixed) {
  const card = at => ({
    title: `Card ${at}`,
    text: "What is to be done, in a few words.",
    column: fixed(["todo", "doing", "done"][at % 3]),
    order: fixed(`a${at}`),
    votes: at,
  })
  return { title: "Board", cards: Object.fromEntries(Array.from({ length: CARDS }, (_, at) => [keyOf(at), card(at)])) }
}

const counts = {}

function Card({ url, id }) {
  const [card] = useDocument(url, board => {
    counts.selectors += 1
    return board.cards[id]
  })
  counts.renders += 1
  return h("li", null, `${card.title} ${card.votes}`)
}

async function show(repo, url) {
  const cards = Array.from({ length: CARDS }, (_, at) => h(Card, { key: at, url, id: keyOf(at) }))
  const root = createRoot(document.body.appendChild(document.createElement("ul")))
  root.render(h(RepoProvider, { repo }, h(Suspense, { fallback: "…" }, cards)))
  while (document.querySelectorAll("li").length < CARDS) await sleep(20)
  await sleep(200)
  return root
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

const channel = new MessageChannel()

/** What was left to be done at the end of this task is done. */
const taskEnd = () =>
  new Promise(resolve => {
    channel.port1.onmessage = resolve
    channel.port2.postMessage(null)
  })

/** How long each call takes, and until all is done that it left to the end of its task, in milliseconds. */
async function timed(count, change) {
  const [calls, tasks] = [[], []]
  for (let i = 0; i < count; i++) {
    await sleep(8)
    const begin = performance.now()
    change(keyOf((i * 37) % CARDS), i)
    calls.push(performance.now() - begin)
    await taskEnd()
    tasks.push(performance.now() - begin)
  }
  return { calls, tasks }
}

const vote = (key, value) => draft => (draft.cards[key].votes = value)

async function opened() {
  const repo = await Repo.open({ name: `board ${Math.random()}` })
  const handle = await repo.create(board(text => new ImmutableString(text)))
  await handle.whenSynced({ level: "local" })
  return { repo, handle }
}

window.measure = async count => {
  const { repo, handle } = await opened()
  const ours = await timed(count, (key, i) => handle.change(vote(key, -i - 1)))
  const root = await show(repo, handle.url)
  const rendered = await timed(count, (key, i) => handle.change(vote(key, i)))
  root.unmount()
  await repo.shutdown()

  let doc = Automerge.from(board(text => new Automerge.ImmutableString(text)))
  const automerge = await timed(count, (key, i) => (doc = Automerge.change(doc, vote(key, -i - 1))))

  const ydoc = new Y.Doc()
  const map = of => new Y.Map(Object.entries(of).map(([k, v]) => [k, typeof v === "object" ? map(v) : v]))
  ydoc.getMap("board").set("cards", map(board(text => text).cards))
  const cards = ydoc.getMap("board").get("cards")
  const yjs = await timed(count, (key, i) => cards.get(key).set("votes", -i - 1))
  return { ours, "ours, 1,000 components": rendered, automerge, yjs }
}

/** All objects in a document. */
function parts(value, found = new Set()) {
  if (typeof value !== "object" || value === null) return found
  found.add(value)
  for (const inner of Object.values(value)) parts(inner, found)
  return found
}

/** What is done for one change, and how often a task of 10 speaks to the Worker. */
window.count = async () => {
  let posts = 0
  const { postMessage } = Worker.prototype
  Worker.prototype.postMessage = function (...args) {
    posts += 1
    return postMessage.apply(this, args)
  }
  const { repo, handle } = await opened()
  const root = await show(repo, handle.url)
  Object.assign(counts, { selectors: 0, renders: 0 })
  const before = parts(handle.doc())
  handle.change(vote(keyOf(5), -1))
  await taskEnd()
  const copied = [...parts(handle.doc())].filter(part => !before.has(part)).length
  const one = { ...counts, copied }
  await handle.whenSynced({ level: "local" })
  await sleep(50)
  posts = 0
  for (let i = 0; i < 10; i++) handle.change(vote(keyOf(i), -2))
  await Promise.resolve()
  const found = { one, posts }
  root.unmount()
  await repo.shutdown()
  return found
}
