// A page that shows texts of a document in inputs and editors, by themselves and in frameworks, and
// the package as `reconverge`.

import { EditorView } from "@codemirror/view"
import { StrictMode, createElement as h, useEffect, useReducer, useRef } from "react"
import { createRoot } from "react-dom/client"
import { createApp, h as vh, onMounted, shallowRef, withDirectives } from "vue"
import * as reconverge from "../../../wasm/dist/browser.js"
import { reconvergeText } from "../../../wasm/dist/codemirror.js"
import { bindText } from "../../../wasm/dist/input.js"
import { usePresence, useTextInput } from "../../../wasm/dist/react.js"
import { presenceStore, textInput } from "../../../wasm/dist/svelte.js"
import { usePresence as useVuePresence, vTextInput } from "../../../wasm/dist/vue.js"

Object.assign(window, { reconverge, bindText, textInput })
window.gone = 0
const onGone = () => void gone++

/** Shows the text at `path` in one of these, as `field`; gives what ends that. */
const kinds = {
  editor(path) {
    const { user } = window
    window.presence ??= new reconverge.Presence(doc, { state: { user, selection: null } })
    window.view = new EditorView({ parent: document.body, extensions: [reconvergeText(doc, path, { presence, onGone })] })
    window.field = view.contentDOM
    return () => view.destroy()
  },
  input: path => bound("input", path),
  textarea: path => bound("textarea", path),
  svelte(path) {
    add("input")
    const action = textInput(field, { handle: doc, path, onGone })
    window.follow = path => action.update({ handle: doc, path, onGone })
    return () => action.destroy()
  },
  react(path) {
    const Field = ({ path }) => h("input", { id: "typed", ref: useTextInput(doc, path, { onGone }) })
    const App = () => {
      const [now, become] = useReducer((_, next) => next, path)
      window.follow = become
      return h(Field, { path: now })
    }
    const root = createRoot(document.body.appendChild(document.createElement("main")))
    root.render(h(StrictMode, null, h(App)))
    return () => root.unmount()
  },
  vue(path) {
    const now = shallowRef(path)
    window.follow = next => void (now.value = next)
    const app = createApp({
      render: () => withDirectives(vh("input", { id: "typed" }), [[vTextInput, { handle: doc, path: now.value, onGone }]]),
    })
    app.mount(document.body.appendChild(document.createElement("main")))
    return () => app.unmount()
  },
}

function add(tag) {
  window.field = document.body.appendChild(document.createElement(tag))
}

function bound(tag, path) {
  add(tag)
  return bindText(field, doc, path, { onGone })
}

window.bind = (kind, path) => {
  window.end = kinds[kind](path)
}

const editor = (parent, presence) => {
  window.view = new EditorView({ parent, extensions: [reconvergeText(doc, ["text"], { presence })] })
  window.field = view.contentDOM
  return () => view.destroy()
}

/** Shows who is there, as `peers`, and an editor, as one person. */
window.join = {
  react(state) {
    const App = () => {
      const { local, peers, presence } = usePresence(doc, state)
      const place = useRef(null)
      useEffect(() => editor(place.current, presence), [presence])
      window.peers = () => [...peers.values()].map(({ state }) => state)
      window.local = local
      return h("div", { ref: place })
    }
    const root = createRoot(document.body.appendChild(document.createElement("main")))
    root.render(h(StrictMode, null, h(App)))
    window.leave = () => root.unmount()
  },
  vue(state) {
    const setup = () => {
      const { peers, presence } = useVuePresence(doc, { state })
      window.peers = () => [...peers.value.values()].map(({ state }) => state)
      onMounted(() => editor(document.querySelector("main"), presence))
      return () => vh("div", peers.value.size)
    }
    createApp({ setup }).mount(document.body.appendChild(document.createElement("main")))
  },
  svelte(state) {
    const store = presenceStore(doc, { state })
    store.subscribe(({ peers }) => (window.peers = () => [...peers.values()].map(({ state }) => state)))
    editor(document.body, store.presence)
  },
}

const PIECES = ["a", "bc ", "é", "\n", "👩‍👩‍👧", "", "", "x"]

/**
 * Makes random edits in the field, as a keyboard would, some of them composed; and some of the text
 * itself. Gives where field and text differed.
 */
window.scribble = async (edits, seed, path) => {
  const random = below => {
    seed = (seed * 1664525 + 1013904223) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  const unlike = []
  const pause = () => new Promise(resolve => setTimeout(resolve, random(6)))
  const at = (index, to = index) => {
    const text = field.value
    const whole = i => (i > 0 && /[\udc00-\udfff]/.test(text[i] ?? "") ? i - 1 : i)
    return [whole(index), whole(Math.max(index, to))]
  }
  const type = (from, to, text) => {
    field.setRangeText(text, from, to, "end")
    field.dispatchEvent(new InputEvent("input", { bubbles: true }))
  }
  field.focus()
  for (let edit = 0; edit < edits; edit++) {
    const start = random(field.value.length + 1)
    const [from, to] = at(start, Math.min(field.value.length, start + random(4)))
    if (random(5) === 0) {
      field.dispatchEvent(new CompositionEvent("compositionstart"))
      field.setSelectionRange(from, from)
      for (let length = 0; length < 3; length++) {
        const caret = field.selectionStart
        type(caret - length, caret, "かなし".slice(0, length + 1))
        await pause()
      }
      field.dispatchEvent(new CompositionEvent("compositionend"))
      await pause()
      await pause()
    } else {
      type(from, to, PIECES[random(PIECES.length)])
    }
    const text = path.reduce((value, key) => value[key], doc.doc())
    if (field.value !== text) unlike.push([field.value, text])
    if (random(6) === 0) doc.change(draft => reconverge.splice(draft, path, 0, 0, "!"))
    if (random(2) === 0) await pause()
  }
  return unlike
}

const TEXTS = ["a", "bc ", "\r\n", "\n", "\r", "😀", "😁", "👩‍👩‍👧", "é", ""]

/**
 * Puts the caret somewhere, lets others edit for a moment, and types there; now and then it edits the
 * text itself, or assigns another one. Gives where a caret was none any more, or a key replaced something.
 */
window.scribbleCarets = async (edits, seed) => {
  const random = below => {
    seed = (seed * 1664525 + 1013904223) >>> 0
    return Math.floor((seed / 2 ** 32) * below)
  }
  const whole = (text, at) => (/[\ud800-\udbff]$/.test(text.slice(0, at)) ? at - 1 : at)
  const shown = text => (field.type === "textarea" ? text.replace(/\r\n?/g, "\n") : text.replace(/[\r\n]/g, ""))
  const wrong = []
  field.focus()
  for (let edit = 0; edit < edits; edit++) {
    const at = whole(field.value, random(field.value.length + 1))
    field.setSelectionRange(at, at)
    const piece = TEXTS[random(TEXTS.length)]
    const [kind, { text }] = [random(12), doc.doc()]
    if (kind === 0) doc.change(draft => void (draft.text = `${text.slice(0, whole(text, random(40)))}${piece}${text.slice(whole(text, 40)).slice(0, 200)}`.toWellFormed()))
    else if (kind < 5) doc.change(draft => reconverge.splice(draft, ["text"], whole(text, random(text.length + 1)), 0, piece))
    await new Promise(resolve => setTimeout(resolve, random(8)))
    const { selectionStart: start, selectionEnd: end, value } = field
    if (start !== end || start !== whole(value, start)) wrong.push(["selected", value, start, end])
    const before = doc.doc().text
    document.execCommand("insertText", false, "k")
    const after = doc.doc().text
    if (after.length !== before.length + 1 || after.replaceAll("k", "") !== before.replaceAll("k", "")) wrong.push(["replaced", before, after])
    if (field.value !== shown(after) || !after.isWellFormed()) wrong.push(["shown", field.value, after])
  }
  return wrong
}
