// Editors and inputs stay with their text while others insert, delete and type around it.

import assert from "node:assert/strict"
import { until } from "../interop/lib/wait.js"
import { becomes, show } from "./lib/doc.js"
import { bind, change, insert, pages, place, selection, shows, value } from "./lib/places.js"
import { story } from "./lib/world.js"

const CARDS = { cards: [{ text: "first" }, { text: "second" }, { text: "third" }] }
const texts = async page => (await show(page)).cards.map(({ text }) => text)
const haveTexts = (page, expected) => becomes(page, { cards: expected.map(text => ({ text })) })

for (const kind of ["editor", "input", "textarea", "svelte", "react", "vue"]) {
  story(`${kind}: it stays with its text when a card comes before it, and says when that is gone`, async world => {
    const [ann, bob] = await pages(world, CARDS)
    await bind(ann, kind, ["cards", 1, "text"])
    await ann.waitForFunction(() => (window.field ??= document.querySelector("#typed")) !== null)
    await shows(ann, "second")
    await place(ann, 6)
    await ann.keyboard.type("!")
    await haveTexts(bob, ["first", "second!", "third"])

    await change(bob, draft => void draft.cards.unshift({ text: "new" }))
    await haveTexts(ann, ["new", "first", "second!", "third"])
    assert.equal(await value(ann), "second!")
    await ann.keyboard.type("?")
    await haveTexts(bob, ["new", "first", "second!?", "third"])
    await insert(bob, ["cards", 2, "text"], 0, "the ")
    await shows(ann, "the second!?")
    await ann.keyboard.type("-")
    await haveTexts(bob, ["new", "first", "the second!?-", "third"])

    await change(bob, draft => void draft.cards.splice(2, 1))
    await haveTexts(ann, ["new", "first", "third"])
    await ann.keyboard.type("lost")
    await ann.keyboard.press("Backspace")
    assert.equal(await value(ann), "the second!?-", "it shows what it was")
    assert.equal(await ann.evaluate(() => gone), 1)
    assert.deepEqual(await texts(ann), ["new", "first", "third"])
    const isTold = () => (field.readOnly ?? view.dom.classList.contains("cm-noText")) && (field.readOnly ?? view.contentDOM.ariaReadOnly === "true")
    assert.equal(await ann.evaluate(`(${isTold})()`), true)
    await ann.evaluate(() => end())
  })
}

for (const kind of ["svelte", "react", "vue"]) {
  story(`${kind}: an input follows to another text, and keeps its caret at the same one`, async world => {
    const [ann] = await pages(world, CARDS, 1)
    await bind(ann, kind, ["cards", 1, "text"])
    await ann.waitForFunction(() => (window.field ??= document.querySelector("#typed")) !== null)
    await shows(ann, "second")
    await place(ann, 3)
    await change(ann, draft => void draft.cards.unshift({ text: "new" }))
    // As a component does that is rendered again with the new index of its card.
    await ann.evaluate(() => follow(["cards", 2, "text"]))
    await ann.keyboard.type("x")
    await haveTexts(ann, ["new", "first", "secxond", "third"])
    await ann.evaluate(() => follow(["cards", 0, "text"]))
    await shows(ann, "new")
    await ann.evaluate(() => end())
    await insert(ann, ["cards", 0, "text"], 0, "brand ")
    assert.equal(await value(ann), "new", "it is bound no more")
  })
}

for (const kind of ["input", "textarea"]) {
  story(`${kind}: what one types stays together while another types before it`, async world => {
    const [ann, bob] = await pages(world, { text: "[]" })
    for (const page of [ann, bob]) await bind(page, kind, ["text"])
    await place(ann, 1)
    await place(bob, 0)
    const [hers, his] = ["abcdefghij".repeat(8), "0123456789".repeat(8)]
    await Promise.all([ann.keyboard.type(hers, { delay: 4 }), bob.keyboard.type(his, { delay: 3 })])
    const expected = `${his}[${hers}]`
    for (const page of [ann, bob]) {
      await becomes(page, { text: expected })
      await shows(page, expected)
    }
  })

  story(`${kind}: a selection stays what it is, and its keys undo one's own edits only`, async world => {
    const [ann, bob] = await pages(world, { text: "one two three" })
    await bind(ann, kind, ["text"])
    await place(ann, 4, 7)
    await insert(bob, ["text"], 4, "and ")
    await insert(bob, ["text"], 11, "?")
    await shows(ann, "one and two? three")
    assert.deepEqual(await selection(ann), [8, 11])
    await ann.keyboard.type("2")
    await becomes(bob, { text: "one and 2? three" })
    await ann.keyboard.press("Control+z")
    await shows(ann, "one and two? three")
    await ann.keyboard.press("Control+Shift+Z")
    await shows(ann, "one and 2? three")
    await ann.keyboard.press("Control+z")
    await shows(ann, "one and two? three")
    await ann.keyboard.press("Control+y")
    await becomes(bob, { text: "one and 2? three" })
    await ann.keyboard.press("Control+z")
    await ann.keyboard.press("Control+z")
    await becomes(bob, { text: "one and two? three" })
  })

  story(`${kind}: what is composed is not torn apart, and goes where it is`, async world => {
    const [ann, bob] = await pages(world, { text: "before after" })
    await bind(ann, kind, ["text"])
    await place(ann, 7)
    const keyboard = await ann.context().newCDPSession(ann)
    const compose = text => keyboard.send("Input.imeSetComposition", { text, selectionStart: text.length, selectionEnd: text.length })
    await compose("か")
    await becomes(bob, { text: "before かafter" })
    await insert(bob, ["text"], 0, "the ")
    await insert(bob, ["text"], "the before か".length, "-")
    await becomes(ann, { text: "the before か-after" })
    assert.equal(await value(ann), "before かafter", "it would end the composition")
    await compose("かな")
    await becomes(bob, { text: "the before かな-after" })
    await keyboard.send("Input.insertText", { text: "仮名" })
    for (const page of [ann, bob]) await becomes(page, { text: "the before 仮名-after" })
    await shows(ann, "the before 仮名-after")
    assert.deepEqual(await selection(ann), [13, 13])
  })

  story(`${kind}: two scribble in one text, and see the same`, async world => {
    const seed = Number(process.env.RECONVERGE_SEED ?? Date.now() % 1e9)
    world.tell(`RECONVERGE_SEED=${seed}`)
    const all = await pages(world, { text: "The quick brown fox", list: ["jumps over"] })
    for (const page of all) await bind(page, kind, ["list", 0])
    const run = (page, n) => page.evaluate(seed => scribble(150, seed, ["list", 0]), seed + n)
    const unlike = await Promise.all(all.map(run))
    const same = async () => new Set(await Promise.all(all.flatMap(page => [value(page), show(page).then(({ list }) => list[0])]))).size === 1
    // An input has no lines.
    if (kind === "textarea") {
      assert.deepEqual(unlike, [[], []])
      await until("all to show the same", same, { seen: () => Promise.all(all.map(value)) })
    }
    await until("the documents to be the same", async () => {
      const [one, other] = await Promise.all(all.map(show))
      return one.list[0] === other.list[0]
    })
  })
}

story("an element that changes the text is edited where it was", async world => {
  const [ann, bob] = await pages(world, { text: "one\r\ntwo\r\nthree" })
  await bind(ann, "textarea", ["text"])
  await bind(bob, "input", ["text"])
  assert.equal(await value(ann), "one\ntwo\nthree")
  assert.equal(await value(bob), "onetwothree")
  await place(ann, 8)
  await ann.keyboard.type("x")
  await place(bob, 6)
  await bob.keyboard.type("y")
  for (const page of [ann, bob]) await becomes(page, { text: "one\r\ntwoy\r\nxthree" })
  // The caret stays where it is.
  await place(bob, 7)
  await place(ann, 9)
  await ann.keyboard.type("z")
  await becomes(bob, { text: "one\r\ntwoy\r\nzxthree" })
  await bob.keyboard.type("!")
  for (const page of [ann, bob]) await becomes(page, { text: "one\r\ntwoy!\r\nzxthree" })
  await place(ann, 4)
  await ann.keyboard.press("Backspace")
  await becomes(bob, { text: "onetwoy!\r\nzxthree" })
})

story("a field that is of no use, or whose form is reset, and one that was never there", async world => {
  const [ann] = await pages(world, { text: "kept", later: {} }, 1)
  const message = await ann.evaluate(() => {
    const number = document.createElement("input")
    number.type = "number"
    try {
      bindText(number, doc, ["text"])
    } catch (error) {
      return `${error.name}: ${error.message}`
    }
  })
  assert.match(message, /^TypeError: an input of type number has no caret/)

  await ann.evaluate(() => {
    const form = document.body.appendChild(document.createElement("form"))
    window.field = form.appendChild(document.createElement("input"))
    bindText(field, doc, ["text"])
    form.reset()
  })
  await shows(ann, "kept")
  assert.deepEqual(await show(ann), { text: "kept", later: {} })

  await ann.evaluate(() => bind("input", ["later", "text"]))
  assert.deepEqual(await ann.evaluate(() => [field.value, field.readOnly, gone]), ["", true, 0])
  await change(ann, draft => void (draft.later.text = "here"))
  await shows(ann, "here")
  assert.equal(await ann.evaluate(() => field.readOnly), false)
})

story("another's selection is shown in the text that it is in, wherever that is by then", async world => {
  const [ann, bob] = await pages(world, CARDS)
  await ann.evaluate(() => (window.user = { name: "Ann", color: "#0f766e" }))
  await bob.evaluate(() => (window.user = { name: "Bob", color: "#9d174d" }))
  await bind(ann, "editor", ["cards", 1, "text"])
  await place(ann, 0, 3)
  await bob.evaluate(() => doc.change(draft => draft.cards.unshift({ text: "new" })))
  await haveTexts(ann, ["new", "first", "second", "third"])
  // Ann told of her selection when her card was the second one.
  await bind(bob, "editor", ["cards", 2, "text"])
  await until("bob to see ann's caret", () => bob.evaluate(() => document.querySelectorAll(".cm-peerCaret").length === 1))
  await bob.evaluate(() => end())
  await bind(bob, "editor", ["cards", 1, "text"])
  await bob.evaluate(async () => {
    // All who are present were looked for.
    for (let turn = 0; turn < 5; turn++) await doc.cursor(["cards", 1, "text"], 0)
  })
  assert.equal(await bob.evaluate(() => view.dom.querySelectorAll(".cm-peerCaret").length), 0)
})

for (const kind of ["react", "vue", "svelte"]) {
  story(`${kind}: who is there and has an editor is one peer`, async world => {
    const all = await pages(world, { text: "one two three" })
    for (const [n, page] of all.entries()) {
      const user = { name: ["Ann", "Bob"][n], color: "#0f766e" }
      await page.evaluate(([kind, user]) => join[kind]({ user, selection: null }), [kind, user])
      await page.waitForFunction(() => window.view !== undefined)
    }
    const [ann, bob] = all
    await place(ann, 4, 7)
    const seen = () => bob.evaluate(() => peers().map(({ user, selection }) => [user.name, selection !== null]))
    await until("bob to see ann's selection", async () => JSON.stringify(await seen()) === '[["Ann",true]]', { seen })
    const isShown = () => bob.evaluate(() => document.querySelector(".cm-peerName")?.textContent === "Ann")
    await until("ann's caret in bob's editor", isShown)
  })
}

story("react: who leaves a document and comes back begins anew", async world => {
  const [ann] = await pages(world, { text: "" }, 1)
  const comes = async card => {
    await ann.evaluate(card => {
      window.local = undefined
      join.react({ user: { name: "Ann" }, selection: null, card })
    }, card)
    await until("her state", () => ann.evaluate(() => window.local !== undefined))
    // Both renders of strict mode, and the effects.
    await ann.evaluate(() => new Promise(resolve => setTimeout(() => requestAnimationFrame(() => setTimeout(resolve)))))
    return ann.evaluate(() => local.card)
  }
  assert.equal(await comes(5), 5)
  await ann.evaluate(() => {
    leave()
    return new Promise(resolve => setTimeout(() => setTimeout(resolve)))
  })
  assert.equal(await comes(null), null)
})

story("the name at a caret is not cut off, in an editor of one line, too", async world => {
  const [ann, bob] = await pages(world, { text: "one two three" })
  await ann.evaluate(() => (window.user = { name: "Ann", color: "#0f766e" }))
  await bob.evaluate(() => (window.user = { name: "Bob", color: "#9d174d" }))
  for (const page of [ann, bob]) await bind(page, "editor", ["text"])
  const looks = () =>
    bob.evaluate(() => {
      const name = document.querySelector(".cm-peerName")?.getBoundingClientRect()
      const line = view.scrollDOM.getBoundingClientRect()
      return name && name.top >= line.top - 1 && name.bottom <= line.bottom + 2 && name.left >= line.left && name.right <= line.right
    })
  for (const at of [0, 6, 13]) {
    await place(ann, at)
    await until(`the name at ${at} to be within the line`, looks)
  }
})

story("a place is where its object is", async world => {
  const [ann] = await pages(world, { cards: [{ id: "a", tags: ["x"] }, { id: "b", tags: ["y"] }] }, 1)
  const found = await ann.evaluate(async () => {
    const card = doc.place(["cards", 1])
    const tag = doc.place(["cards", 1, "tags"])
    const none = doc.place(["cards", 7, "tags"])
    const seen = [card.path, tag.value, none.isThere, none.path]
    doc.change(draft => void draft.cards.unshift({ id: "c", tags: [] }))
    seen.push(card.path, card.value.id, tag.path, tag.value)
    const cursor = await doc.cursor(tag, 0)
    doc.change(draft => void draft.cards[2].tags.unshift("z"))
    seen.push(await doc.position(tag, cursor))
    doc.change(draft => void (draft.cards[2].tags = ["other"]))
    seen.push(tag.value)
    doc.change(draft => void draft.cards.splice(2, 1))
    seen.push(card.isThere, card.path, card.value, tag.value)
    seen.push(await doc.cursor(tag, 0).catch(error => error.name))
    return seen
  })
  assert.deepEqual(found, [
    ["cards", 1], ["y"], false, undefined,
    ["cards", 2], "b", ["cards", 2, "tags"], ["y"],
    1, ["other"], false, undefined, undefined, undefined, "RangeError",
  ])
})
