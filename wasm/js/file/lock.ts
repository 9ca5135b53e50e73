// One process at a time has a file. The lock is a socket: the system frees it when the process ends,
// however it does.

import { createHash } from "node:crypto"
import { rm } from "node:fs/promises"
import { connect, createServer, type Server } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { platform } from "node:process"
import { codeOf } from "./disk.js"

/** Where a process that has the file listens. Nothing of it is left behind when that ends, but on other systems than Linux and Windows a name. */
export function lockOf(path: string): string {
    const name = `reconverge-${createHash("sha256").update(path).digest("hex").slice(0, 32)}`
    if (platform === "linux") return `\0${name}`
    return platform === "win32" ? `\\\\.\\pipe\\${name}` : join(tmpdir(), name)
}

/** Gives what frees it; undefined if a process that lives has it. */
export async function lock(address: string): Promise<(() => Promise<void>) | undefined> {
    const server = (await listen(address)) ?? ((await isLeft(address)) ? await listen(address) : undefined)
    return server && (() => new Promise((done) => server.close(() => done())))
}

function listen(address: string): Promise<Server | undefined> {
    return new Promise((resolve, reject) => {
        const server = createServer((socket) => socket.destroy())
        server.once("error", (error) => (codeOf(error) === "EADDRINUSE" ? resolve(undefined) : reject(error)))
        server.listen(address, () => {
            // The process may end with it.
            server.unref()
            resolve(server)
        })
    })
}

/** Whether a process that was killed left its name; then it is taken away. */
function isLeft(address: string): Promise<boolean> {
    if (!address.startsWith("/")) return Promise.resolve(false)
    return new Promise((resolve) => {
        const socket = connect(address)
        socket.once("connect", () => {
            socket.destroy()
            resolve(false)
        })
        socket.once("error", (error) => {
            const isLeft = codeOf(error) === "ECONNREFUSED"
            void (isLeft ? rm(address, { force: true }) : Promise.resolve()).then(() => resolve(isLeft))
        })
    })
}
