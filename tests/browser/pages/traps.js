// Makes the engine trap when it is told to, in the page and in its worker: a classic script that
// runs before any other.

function traps() {
  /** The exported function that traps, the document on which it does, and how often. */
  const plan = { name: undefined, document: undefined, times: 0 }
  self.traps = { plan, trapped: 0, instances: 0 }
  const orders = new BroadcastChannel("traps")
  const isWorker = typeof document === "undefined"
  orders.onmessage = ({ data }) => {
    if (!isWorker || data === "armed") return
    Object.assign(plan, data)
    orders.postMessage("armed")
  }

  const text = (memory, at, length) => {
    try {
      return new TextDecoder().decode(new Uint8Array(memory.buffer, at, length))
    } catch {
      return undefined
    }
  }
  const watched = ({ exports }) => {
    self.traps.instances += 1
    const call = (name, value) => (...args) => {
      // The document is the first argument, or the one after the time; a text is two numbers.
      const named = () => [1, 2].some(i => text(exports.memory, args[i], args[i + 1]) === plan.document)
      if (name === plan.name && plan.times > 0 && (plan.document === undefined || named())) {
        plan.times -= 1
        self.traps.trapped += 1
        throw new WebAssembly.RuntimeError("unreachable, on purpose")
      }
      return value(...args)
    }
    const all = Object.entries(exports)
    return { exports: Object.fromEntries(all.map(([name, value]) => [name, name.startsWith("client_") ? call(name, value) : value])) }
  }
  const { Instance } = WebAssembly
  WebAssembly.Instance = function (...args) {
    return watched(new Instance(...args))
  }
  if (isWorker) return

  /** Says what traps from now on. */
  self.arm = (where, { name, document, times = Infinity }) => {
    if (where === "page") return void Object.assign(plan, { name, document, times })
    return new Promise(resolve => {
      const channel = new BroadcastChannel("traps")
      channel.onmessage = ({ data }) => {
        if (data !== "armed") return
        channel.close()
        resolve()
      }
      channel.postMessage({ name, document, times })
    })
  }
  const { Blob } = self
  self.Blob = class extends Blob {
    constructor(parts, options) {
      const isScript = options?.type === "text/javascript"
      super(isScript ? [`(${traps})();`, ...parts] : parts, options)
    }
  }
}

traps()
