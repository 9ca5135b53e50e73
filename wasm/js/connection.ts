// What bindings show of a repo's connections.

import type { Repo } from "./repo.js"
import type { Connection } from "./types.js"

export function connectionOf(repo: Repo): Connection {
    const { isConnected, isOffline, connections } = repo
    return { isConnected, isOffline, connections }
}

/** Calls `listener` whenever that may be another one. Gives what ends that. */
export function onConnection(repo: Repo, listener: () => void): () => void {
    const ends = [repo.on("connection", listener), repo.on("offline", listener)]
    return () => ends.forEach((end) => end())
}
