// Inputs whose value and selection are changed by others, by the page and by the browser: what one
// types replaces nothing but what one selected.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { BROWSERS } from "./lib/browsers.js"
import { becomes, create, find, open, show } from "./lib/doc.js"
import { bind, change, insert, pages, place, placesSite, selection, shows, value } from "./lib/places.js"
import { story } from "./lib/world.js"

/** What somebody has selected, what another does, the selection then, and the text when "!" was typed. */
const CASES = {
  "lines that end otherwise": {
    text: "one\r\ntwo\r\nthree\r\nfour", at: [5],
    edit: draft => reconverge.splice(draft, ["text"], 0, 0, "X"),
    then: [6, 6], typed: "Xone\r\nt!wo\r\nthree\r\nfour",
  },
  "a text of several lines in an input": {
    tag: "input", text: "one\ntwo\nthree\nfour", at: [4],
    edit: draft => reconverge.splice(draft, ["text"], 0, 0, "X"),
    then: [5, 5], typed: "Xone\nt!wo\nthree\nfour",
  },
  "a url with space around it": {
    tag: "input", type: "url", text: " http://x ", at: [4],
    edit: draft => reconverge.splice(draft, ["text"], 0, 0, "B"),
    then: [6, 6], typed: "B http!://x ",
  },
  "another text is assigned": {
    text: "Meeting on Monday at nine", at: [13],
    edit: draft => void (draft.text = "Meeting on Friday at nine"),
    then: [11, 11], typed: "Meeting on !Friday at nine",
  },
  "the text is deleted, and made anew": {
    text: "abc", at: [1],
    edit: draft => {
      delete draft.text
      draft.text = "back"
    },
    then: [0, 0], typed: "!back",
  },
  "more edits than are followed": {
    text: "0123456789".repeat(200), at: [1001],
    edit: draft => {
      for (let at = 1800; at > 0; at -= 3) reconverge.splice(draft, ["text"], at, 1, "x")
    },
    then: [1001, 1001],
    typed: [..."0123456789".repeat(200)].map((unit, at) => (at > 0 && at % 3 === 0 && at <= 1800 ? "x" : unit)).join("").replace(/^.{1001}/, "$&!"),
  },
  "what is selected is replaced": {
    text: "one two three", at: [4, 7],
    edit: draft => reconverge.splice(draft, ["text"], 4, 3, "2"),
    then: [5, 5], typed: "one 2! three",
  },
  "all is selected, and assigned": {
    text: "abc", at: [0, 3],
    edit: draft => void (draft.text = "other"),
    then: [0, 0], typed: "!other",
  },
  "a selection backwards": {
    text: "one two three", at: [4, 7, "backward"],
    edit: draft => reconverge.splice(draft, ["text"], 0, 0, "xx"),
    then: [6, 9], direction: "backward", typed: "xxone ! three",
  },
}

/** A field with a text in a tab, the focus and a selection. */
const field = (tab, { tag = "textarea", type, text, at }) =>
  tab.evaluate(([tag, type, text, [start, end = start, direction = "none"]]) => {
    window.end?.()
    window.field?.remove()
    doc.change(draft => void (draft.text = text))
    window.field = document.body.appendChild(document.createElement(tag))
    if (type) window.field.type = type
    window.end = bindText(window.field, doc, ["text"])
    window.field.focus()
    window.field.setSelectionRange(start, end, direction)
  }, [tag, type, text, at])

/** Another makes an edit. */
const another = (tab, edit) =>
  tab.evaluate(async source => {
    window.other ??= await doc.clone()
    await other.merge(doc)
    other.change((0, eval)(`(${source})`))
    await doc.merge(other)
  }, String(edit))

const text = tab => tab.evaluate(() => doc.doc().text)
const has = (tab, expected) => until(`the text ${JSON.stringify(expected)}`, async () => (await text(tab)) === expected, { seen: () => text(tab) })

for (const kind of BROWSERS) {
  story(`${kind}: a caret stays a caret, and a selection what it was, whatever others do`, async world => {
    const site = await placesSite(world)
    const browser = await world.browser(kind)
    const tab = await browser.tab()
    await tab.goto(`${site.url}/places.html`)
    await until("the page", () => tab.evaluate(() => window.bind !== undefined))
    await open(tab)
    await create(tab, { text: "" })
    for (const [name, { edit, then, direction, typed, ...given }] of Object.entries(CASES)) {
      world.tell(name)
      await field(tab, given)
      await another(tab, edit)
      const seen = await tab.evaluate(() => [field.selectionStart, field.selectionEnd, field.selectionDirection])
      assert.deepEqual(seen.slice(0, 2), then, name)
      if (direction) assert.equal(seen[2], direction, name)
      await tab.press("!")
      await has(tab, typed)
      assert.equal(await tab.evaluate(() => document.activeElement === field), true, name)
    }

    world.tell("without the focus")
    await field(tab, { text: "Meeting on Monday at nine", at: [13] })
    await tab.evaluate(() => field.blur())
    await another(tab, draft => void (draft.text = "Meeting on Friday at nine"))
    assert.deepEqual(await tab.evaluate(() => [document.activeElement === field, field.selectionStart, field.selectionEnd]), [false, 11, 11])

    world.tell("halves of characters")
    for (const [before, after] of [["a😀b\r\n", "a😁b\r\n"], ["a😀b", "a😁b"]]) {
      await field(tab, { text: before, at: [1, 3] })
      await tab.evaluate(() => void document.execCommand("insertText", false, "😁"))
      await has(tab, after)
    }

    world.tell("a form that is reset")
    await tab.evaluate(() => {
      end()
      field.remove()
      doc.change(draft => void (draft.text = "kept by all"))
      window.field = document.createElement("input")
      window.end = bindText(field, doc, ["text"])
      const form = document.body.appendChild(document.createElement("form"))
      form.append(field)
      form.reset()
    })
    await until("the text again", () => tab.evaluate(() => field.value === "kept by all"))
    world.tell("a value that somebody else set")
    await tab.evaluate(() => {
      field.focus()
      field.value = ""
    })
    await tab.press("x")
    await until("the key", async () => (await text(tab)).includes("x"))
    assert.equal((await text(tab)).replace("x", ""), "kept by all")
    await until("the field to show the same", async () => (await tab.evaluate(() => field.value)) === (await text(tab)))

    world.tell("the field is moved")
    await field(tab, { text: "one two three", at: [4, 7] })
    await tab.evaluate(() => {
      document.body.append(document.createElement("hr"))
      // As frameworks do that render again.
      window.off = doc.on("change", () => queueMicrotask(() => document.body.append(field)))
    })
    await another(tab, draft => reconverge.splice(draft, ["text"], 0, 0, "X"))
    await until("the focus", () => tab.evaluate(() => document.activeElement === field))
    await tab.press("2")
    await has(tab, "Xone 2 three")
    await tab.evaluate(() => {
      off()
      field.blur()
      queueMicrotask(() => document.body.prepend(field))
    })
    assert.equal(await tab.evaluate(() => document.activeElement === document.body), true, "it was left")
  }, { ms: 300_000 })
}

for (const kind of ["input", "textarea"]) {
  story(`${kind}: characters that are composed over others are whole`, async world => {
    const [ann, bob] = await pages(world, { text: "a😀b" })
    await bind(ann, kind, ["text"])
    await place(ann, 1, 3)
    const keyboard = await ann.context().newCDPSession(ann)
    for (const text of ["😁", "😂"]) {
      await keyboard.send("Input.imeSetComposition", { text, selectionStart: 2, selectionEnd: 2 })
      await becomes(bob, { text: `a${text}b` })
    }
    await keyboard.send("Input.insertText", { text: "😃" })
    await becomes(bob, { text: "a😃b" })
    await shows(ann, "a😃b")
    assert.deepEqual(await selection(ann), [3, 3])
  })

  story(`${kind}: a text that is assigned while something is composed does not end that`, async world => {
    const [ann, bob] = await pages(world, { text: "Meeting on Monday" })
    await bind(ann, kind, ["text"])
    await place(ann, 17)
    const keyboard = await ann.context().newCDPSession(ann)
    const compose = text => keyboard.send("Input.imeSetComposition", { text, selectionStart: text.length, selectionEnd: text.length })
    await compose("か")
    await becomes(bob, { text: "Meeting on Mondayか" })
    await change(bob, draft => void (draft.text = "Lunch on Mondayか"))
    await becomes(ann, { text: "Lunch on Mondayか" })
    assert.equal(await value(ann), "Meeting on Mondayか")
    await compose("かな")
    await keyboard.send("Input.insertText", { text: "仮名" })
    for (const page of [ann, bob]) await becomes(page, { text: "Lunch on Monday仮名" })
    await shows(ann, "Lunch on Monday仮名")
    assert.deepEqual(await selection(ann), [17, 17])
  })
}

for (const kind of ["input", "editor", "svelte", "react", "vue"]) {
  for (const [how, end] of Object.entries({
    "the handle was released": () => doc.release(),
    "the document was deleted": () => repo.delete(doc.url),
    "the repo was shut down": () => repo.shutdown(),
  })) {
    story(`${kind}: when ${how}, it is read-only and says so`, async world => {
      const [ann] = await pages(world, { text: "text" }, 1)
      await bind(ann, kind, ["text"])
      await ann.waitForFunction(() => (window.field ??= document.querySelector("#typed")) !== null)
      await shows(ann, "text")
      await place(ann, 4)
      await ann.evaluate(end)
      await ann.waitForFunction(() => field.readOnly ?? view.dom.classList.contains("cm-noText"))
      assert.equal(await ann.evaluate(() => gone), 1)
      await ann.keyboard.type("lost")
      await ann.keyboard.press("Control+z")
      assert.equal(await value(ann), "text")
      await ann.evaluate(() => window.end())
      if (kind !== "editor") assert.equal(await ann.evaluate(() => field.readOnly), false)
    })
  }
}

story("a document that is deleted in another tab is read-only in inputs and editors", async world => {
  const site = await placesSite(world)
  const context = await world.context()
  const [one, other] = [await world.page(`${site.url}/places.html`, context), await world.page(`${site.url}/places.html`, context)]
  for (const page of [one, other]) {
    await page.waitForFunction(() => window.bind !== undefined)
    await open(page)
  }
  const url = await create(one, { text: "text" })
  await find(other, url)
  await bind(one, "editor", ["text"])
  await bind(one, "input", ["text"])
  await other.evaluate(url => repo.delete(url), url)
  await one.waitForFunction(() => field.readOnly && view.dom.classList.contains("cm-noText"))
  assert.equal(await one.evaluate(() => gone), 2)
  await one.evaluate(() => view.focus())
  await one.keyboard.type("lost")
  await one.evaluate(() => field.focus())
  await one.keyboard.type("lost")
  assert.deepEqual(await one.evaluate(() => [field.value, view.state.doc.toString()]), ["text", "text"])
})

story("an input that the page made read-only stays so, and one without a document is", async world => {
  const [ann, bob] = await pages(world, { o: { text: "one" } })
  await bind(ann, "input", ["o", "text"])
  const readOnly = () => ann.evaluate(() => field.readOnly)
  await ann.evaluate(() => (field.readOnly = true))
  await change(bob, draft => void delete draft.o.text)
  await becomes(ann, { o: {} })
  await change(bob, draft => void (draft.o.text = "two"))
  await shows(ann, "two")
  assert.equal(await readOnly(), true)
  await ann.evaluate(() => end())
  assert.equal(await readOnly(), true)

  await ann.evaluate(() => {
    window.field = document.body.appendChild(document.createElement("input"))
    window.action = textInput(field, { handle: undefined, path: ["o", "text"] })
  })
  assert.equal(await readOnly(), true)
  await ann.evaluate(() => action.update({ handle: doc, path: ["o", "text"] }))
  assert.equal(await readOnly(), false)
  await ann.evaluate(() => action.update({ handle: undefined, path: ["o", "text"] }))
  assert.equal(await readOnly(), true)
  await ann.evaluate(() => action.destroy())
  assert.equal(await readOnly(), false)
})

for (const kind of ["svelte", "react", "vue"]) {
  story(`${kind}: a text that was deleted is still shown when that is rendered again`, async world => {
    const [ann, bob] = await pages(world, { list: [{ t: "one" }, { t: "two" }] })
    await bind(ann, kind, ["list", 1, "t"])
    await ann.waitForFunction(() => (window.field ??= document.querySelector("#typed")) !== null)
    await shows(ann, "two")
    await change(bob, draft => void draft.list.splice(1, 1))
    await ann.waitForFunction(() => field.readOnly)
    await ann.evaluate(() => follow(["list", 1, "t"]))
    await ann.evaluate(() => new Promise(requestAnimationFrame))
    assert.deepEqual(await ann.evaluate(() => [field.value, field.readOnly, gone]), ["two", true, 1])
    await ann.evaluate(() => follow(["list", 0, "t"]))
    await shows(ann, "one")
    assert.equal(await ann.evaluate(() => field.readOnly), false)
  })
}

for (const kind of ["input", "editor"]) {
  story(`${kind}: the keys for undo and redo are those of their place on a layout of other letters`, async world => {
    const [ann] = await pages(world, { text: "start" }, 1)
    await bind(ann, kind, ["text"])
    await place(ann, 5)
    await ann.keyboard.type("!")
    const keyboard = await ann.context().newCDPSession(ann)
    const press = async (key, code, windowsVirtualKeyCode, modifiers) => {
      for (const type of ["rawKeyDown", "keyUp"]) {
        await keyboard.send("Input.dispatchKeyEvent", { type, key, code, windowsVirtualKeyCode, modifiers })
      }
    }
    await press("я", "KeyZ", 90, 2)
    await shows(ann, "start")
    await press("Я", "KeyZ", 90, 2 | 8)
    await shows(ann, "start!")
    await press("я", "KeyZ", 90, 2)
    await shows(ann, "start")
    await press("н", "KeyY", 89, 2)
    await shows(ann, "start!")
  })

  story(`${kind}: it keeps the focus when another moves it in the page, and takes it from nobody`, async world => {
    const [ann, bob] = await pages(world, { text: "one two three" })
    await bind(ann, kind, ["text"])
    await ann.evaluate(() => {
      window.other = document.body.appendChild(document.createElement("button"))
      window.item = window.view?.dom ?? field
      // As frameworks do that render again.
      window.off = doc.on("change", ({ source }) => source === "remote" && queueMicrotask(() => document.body.append(item)))
    })
    const focused = () => ann.evaluate(() => document.activeElement?.tagName)
    const own = await ann.evaluate(() => field.tagName)
    await place(ann, 4, 7)
    await insert(bob, ["text"], 0, "X")
    await shows(ann, "Xone two three")
    assert.equal(await focused(), own)
    await ann.keyboard.type("2")
    await becomes(bob, { text: "Xone 2 three" })
    await ann.evaluate(() => other.focus())
    await insert(bob, ["text"], 0, "Y")
    await shows(ann, "YXone 2 three")
    assert.equal(await focused(), "BUTTON")
    await ann.evaluate(() => {
      ;(window.view ?? field).focus()
      document.activeElement.blur()
      queueMicrotask(() => document.body.prepend(item))
    })
    assert.equal(await focused(), "BODY", "it was left before it was moved")
    await ann.evaluate(() => {
      ;(window.view ?? field).focus()
      item.remove()
      setTimeout(() => document.body.append(item))
    })
    await ann.waitForFunction(() => item.isConnected)
    assert.equal(await focused(), "BODY", "it was removed, and is back")
  })
}

for (const kind of ["input", "textarea"]) {
  story(`${kind}: two scribble and assign texts with line ends and emoji, and no key replaces anything`, async world => {
    const seed = Number(process.env.RECONVERGE_SEED ?? Date.now() % 1e9)
    world.tell(`RECONVERGE_SEED=${seed}`)
    const all = await pages(world, { text: "The quick\r\nbrown 😀 fox\njumps" })
    for (const page of all) await bind(page, kind, ["text"])
    const wrong = await Promise.all(all.map((page, n) => page.evaluate(seed => scribbleCarets(120, seed), seed + n)))
    assert.deepEqual(wrong, [[], []])
    await until("the documents to be the same", async () => {
      const [one, other] = await Promise.all(all.map(show))
      return one.text === other.text
    })
  })
}

story("what is no input is refused, and nothing of it stays", async world => {
  const [ann] = await pages(world, { text: "kept" }, 1)
  const messages = await ann.evaluate(() =>
    ["div", "select"].map(tag => {
      try {
        bindText(document.createElement(tag), doc, ["text"])
      } catch (error) {
        return `${error.name}: ${error.message}`
      }
    })
  )
  for (const message of messages) assert.match(message, /^TypeError: a text can be shown in an <input> or a <textarea> only/)
  await insert(ann, ["text"], 0, "still ")
})

story("what is no text is refused, and told in the console where that would take down a page", async world => {
  const [ann] = await pages(world, { kept: "kept" }, 1)
  await ann.evaluate(() =>
    doc.change(draft => Object.assign(draft, { kind: new reconverge.ImmutableString("k"), votes: new reconverge.Counter(), list: [new reconverge.ImmutableString("k")], none: null }))
  )
  const why = {
    "/kind": /the string at \/kind is fixed: it can only be replaced/,
    "/votes": /there is no text at \/votes/,
    "/list": /there is no text at \/list/,
    "/list/0": /the string at \/list\/0 is fixed/,
  }
  const paths = [["kind"], ["votes"], ["list"], ["list", 0]]
  for (const path of paths) {
    for (const kind of ["input", "editor"]) {
      const failure = await ann.evaluate(([kind, path]) => {
        try {
          bind(kind, path)
        } catch (error) {
          return `${error.name}: ${error.message}`
        }
      }, [kind, path])
      assert.match(failure, /^TypeError: /)
      assert.match(failure, why[`/${path.join("/")}`])
    }
  }
  world.expect(/nobody can write in this input/)
  const warnings = []
  ann.on("console", message => message.type() === "warning" && warnings.push(message.text()))
  for (const kind of ["svelte", "react", "vue"]) {
    for (const path of paths) {
      warnings.length = 0
      await bind(ann, kind, path)
      await until("a warning", () => warnings.some(text => why[`/${path.join("/")}`].test(text)), { seen: () => warnings })
      assert.equal(await ann.evaluate(() => (document.querySelector("#typed") ?? field).readOnly), true)
      await ann.evaluate(() => end())
    }
  }
  // Where a text may come, there is nothing to say.
  for (const path of [["none"], ["later"]]) {
    await bind(ann, "input", path)
    await ann.evaluate(key => doc.change(draft => void (draft[key] = "text")), path[0])
    await shows(ann, "text")
  }
})
