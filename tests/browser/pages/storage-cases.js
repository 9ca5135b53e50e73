// What any storage must do, by sentences. The first part are the cases that automerge-repo has for
// its storage adapters; ours keep order by key.
//
// Each case is given `open`, which returns a storage on the same data at every call.

import { rejection, same } from "../lib/same.js"

const A = () => new Uint8Array([0, 1, 127, 99, 154, 235])
const B = () => new Uint8Array([1, 76, 160, 53, 57, 10, 230])
const C = () => new Uint8Array([2, 111, 74, 131, 236, 96, 142, 193])
const LARGE = () => Uint8Array.from({ length: 1_000_000 }, (_, i) => (i * 2654435761) >>> 24)

const keysOf = async (storage, prefix = []) =>
  (await storage.keys(prefix)).map(key => key.join("/"))

/** Saves one byte under each of the keys, written with slashes. */
const fill = (storage, ...keys) =>
  storage.commit(keys.map(key => ({ put: key === "" ? [] : key.split("/"), data: A() })))

export const cases = {
  async "what was never saved is undefined"(open) {
    same(await open().load(["AAAAA", "sync-state", "xxxxx"]), undefined)
  },

  async "a range without data is empty"(open) {
    same(await open().loadRange(["AAAAA"]), [])
    same(await open().keys(["AAAAA"]), [])
  },

  async "what is saved is loaded"(open) {
    const storage = open()
    await storage.save(["storage-adapter-id"], A())
    same(await storage.load(["storage-adapter-id"]), A())
  },

  async "keys may have several components"(open) {
    const storage = open()
    await storage.save(["AAAAA", "sync-state", "xxxxx"], A())
    same(await storage.load(["AAAAA", "sync-state", "xxxxx"]), A())
    same(await storage.load(["AAAAA", "sync-state"]), undefined)
  },

  async "large data is kept"(open) {
    const storage = open()
    await storage.save(["AAAAA", "sync-state", "xxxxx"], LARGE())
    same(await storage.load(["AAAAA", "sync-state", "xxxxx"]), LARGE())
  },

  async "a range has all that starts with the prefix, in the order of keys"(open) {
    const storage = open()
    await storage.save(["AAAAA", "sync-state", "xxxxx"], A())
    await storage.save(["AAAAA", "snapshot", "yyyyy"], B())
    await storage.save(["AAAAA", "sync-state", "zzzzz"], C())
    same(await storage.loadRange(["AAAAA"]), [
      { key: ["AAAAA", "snapshot", "yyyyy"], data: B() },
      { key: ["AAAAA", "sync-state", "xxxxx"], data: A() },
      { key: ["AAAAA", "sync-state", "zzzzz"], data: C() },
    ])
    same(await storage.loadRange(["AAAAA", "sync-state"]), [
      { key: ["AAAAA", "sync-state", "xxxxx"], data: A() },
      { key: ["AAAAA", "sync-state", "zzzzz"], data: C() },
    ])
  },

  async "a range has nothing else"(open) {
    const storage = open()
    await storage.save(["AAAAA", "sync-state", "xxxxx"], A())
    await storage.save(["BBBBB", "sync-state", "zzzzz"], C())
    same(await storage.loadRange(["AAAAA"]), [
      { key: ["AAAAA", "sync-state", "xxxxx"], data: A() },
    ])
  },

  async "what is removed is gone"(open) {
    const storage = open()
    await storage.save(["AAAAA", "snapshot", "xxxxx"], A())
    await storage.remove(["AAAAA", "snapshot", "xxxxx"])
    same(await storage.loadRange(["AAAAA"]), [])
    same(await storage.load(["AAAAA", "snapshot", "xxxxx"]), undefined)
  },

  async "saving again replaces"(open) {
    const storage = open()
    await storage.save(["AAAAA", "sync-state", "xxxxx"], A())
    await storage.save(["AAAAA", "sync-state", "xxxxx"], B())
    same(await storage.loadRange(["AAAAA", "sync-state"]), [
      { key: ["AAAAA", "sync-state", "xxxxx"], data: B() },
    ])
  },

  async "removing a range leaves the rest"(open) {
    const storage = open()
    await fill(storage, "AAAAA/sync-state/x", "AAAAA/snapshot/y", "AAAAA/sync-state/z", "BBBBB/sync-state/x")
    await storage.removeRange(["AAAAA", "sync-state"])
    same(await keysOf(storage), ["AAAAA/snapshot/y", "BBBBB/sync-state/x"])
    await storage.removeRange(["AAAAA"])
    same(await keysOf(storage), ["BBBBB/sync-state/x"])
  },

  async "a prefix is of whole components, and itself included"(open) {
    const storage = open()
    await fill(storage, "a", "a/b", "ab", "a/\uffff", "a/\uffff\uffff/c", "a/", "A")
    same(await keysOf(storage, ["a"]), ["a", "a/", "a/b", "a/\uffff", "a/\uffff\uffff/c"])
    same(await keysOf(storage, ["ab"]), ["ab"])
    await storage.removeRange(["a"])
    same(await keysOf(storage), ["A", "ab"])
  },

  async "the empty prefix stands for all, and is a key"(open) {
    const storage = open()
    await fill(storage, "", "a", "b/c")
    same(await storage.keys([]), [[], ["a"], ["b", "c"]])
    same(await storage.load([]), A())
    await storage.remove([])
    same(await keysOf(storage), ["a", "b/c"])
    await storage.removeRange([])
    same(await keysOf(storage), [])
  },

  async "components are ordered by UTF-16 code units"(open) {
    const storage = open()
    await fill(storage, "\u{1f600}", "\uffee", "é", "z", "Z", "10", "9")
    same(await keysOf(storage), ["10", "9", "Z", "z", "é", "\u{1f600}", "\uffee"])
  },

  async "a range can be bounded in the component behind the prefix"(open) {
    const keys = ["d", "d/1", "d/1/x", "d/2", "d/3", "d/3/y", "e/2"]
    const after = async (range, expected) => {
      const storage = open()
      await storage.removeRange([])
      await fill(storage, ...keys)
      await storage.commit([range])
      same(await keysOf(storage), expected)
    }
    await after({ removeRange: ["d"], below: "3" }, ["d", "d/3", "d/3/y", "e/2"])
    await after({ removeRange: ["d"], from: "2" }, ["d", "d/1", "d/1/x", "e/2"])
    await after({ removeRange: ["d"], from: "1", below: "2" }, ["d", "d/2", "d/3", "d/3/y", "e/2"])
    await after({ removeRange: ["d"], from: "2", below: "2" }, keys)
    await after({ removeRange: ["d"], from: "3", below: "1" }, keys)
    await after({ removeRange: ["d"], below: "" }, keys)
    await after({ removeRange: [], from: "e" }, keys.slice(0, -1))
  },

  async "the writes of a commit apply one after the other"(open) {
    const storage = open()
    await fill(storage, "a/1", "a/2", "b")
    await storage.commit([
      { put: ["a", "3"], data: A() },
      { removeRange: ["a"] },
      { put: ["a", "4"], data: B() },
      { put: ["b"], data: C() },
      { remove: ["b"] },
    ])
    same(await storage.loadRange([]), [{ key: ["a", "4"], data: B() }])
  },

  async "a commit without writes does nothing"(open) {
    await open().commit([])
    same(await keysOf(open()), [])
  },

  async "a commit that fails midway leaves nothing"(open) {
    const storage = open()
    await fill(storage, "kept")
    await rejection(
      storage.commit([
        { remove: ["kept"] },
        { put: ["new"], data: A() },
        { removeRange: [] },
        { put: {}, data: B() },
        { put: ["later"], data: C() },
      ])
    )
    same(await keysOf(storage), ["kept"])
    await fill(storage, "next")
    same(await keysOf(storage), ["kept", "next"])
  },

  async "calls take effect in the order in which they were made"(open) {
    const storage = open()
    const calls = [
      storage.save(["k"], A()),
      storage.load(["k"]),
      storage.save(["k"], B()),
      storage.loadRange([]),
      storage.remove(["k"]),
      storage.load(["k"]),
    ]
    const found = await Promise.all(calls)
    same(found[1], A())
    same(found[3], [{ key: ["k"], data: B() }])
    same(found[5], undefined)
  },

  async "a view is saved without the buffer behind it"(open) {
    const storage = open()
    const buffer = new Uint8Array(1000).fill(7)
    await storage.save(["view"], buffer.subarray(10, 13))
    const loaded = await storage.load(["view"])
    same(loaded, new Uint8Array([7, 7, 7]))
    same(loaded.buffer.byteLength, 3)
  },

  async "what was loaded belongs to the caller"(open) {
    const storage = open()
    const saved = A()
    await storage.save(["k"], saved)
    saved.fill(0)
    const loaded = await storage.load(["k"])
    loaded.fill(0)
    const [chunk] = await storage.loadRange(["k"])
    chunk.data.fill(0)
    chunk.key.push("changed")
    same(await storage.loadRange(["k"]), [{ key: ["k"], data: A() }])
  },

  async "empty data is data"(open) {
    const storage = open()
    await storage.save(["k"], new Uint8Array())
    same(await storage.load(["k"]), new Uint8Array())
    same(await keysOf(storage), ["k"])
  },

  async "closing completes earlier calls and refuses later ones"(open) {
    const storage = open()
    const earlier = storage.save(["k"], A())
    storage.close()
    const error = await rejection(storage.load(["k"]))
    same([error.name, error.failure], ["StorageError", "closed"])
    same((await rejection(storage.save(["l"], A()))).failure, "closed")
    await earlier
    storage.close()
  },
}
