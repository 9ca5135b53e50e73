// A SharedWorker that holds the repo of all tabs: they share with it, and it shares with servers
// only, which it knows by their names.

// The connect event comes before a module that loads WebAssembly is done, so what takes longer is
// imported after the listener is there.
const repo = import("./worker-repo.js").then(({ open }) => open(new URL(self.location).searchParams.get("relay")))

self.addEventListener("connect", async ({ ports: [port] }) => {
  const { connect } = await import("./worker-repo.js")
  connect(await repo, port)
})
