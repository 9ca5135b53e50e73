// The package, as the bench drives it.

import { Repo, splice } from "reconverge"

export async function start(relay) {
  const repo = await Repo.open({ relay })
  return {
    async find(url) {
      const handle = await repo.find(url)
      return {
        doc: () => handle.doc(),
        type: (index, text) => handle.change(draft => splice(draft, ["text"], index, 0, text)),
        onRemote: listener =>
          handle.on("change", ({ source, patches }) => source === "remote" && listener(patches)),
        stored: () => handle.whenSynced({ level: "local" }),
        saved: () => handle.whenSynced(),
        release: () => handle.release(),
      }
    },
  }
}
