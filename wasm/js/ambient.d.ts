// What the entries import besides TypeScript. Not the types of Node.js: these would put its
// globals into code that runs in a page.

declare module "*.wasm" {
    const module: WebAssembly.Module
    export default module
}

declare module "node:fs" {
    export function readFileSync(path: URL): Uint8Array<ArrayBuffer>
}

declare module "node:fs/promises" {
    interface Stats<N> {
        readonly size: N
        readonly ino: N
        readonly dev: N
    }
    export interface FileHandle {
        read(into: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number }>
        write(bytes: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesWritten: number }>
        truncate(length: number): Promise<void>
        sync(): Promise<void>
        datasync(): Promise<void>
        stat(): Promise<Stats<number>>
        stat(options: { bigint: true }): Promise<Stats<bigint>>
        close(): Promise<void>
    }
    export function open(path: string, flags: string): Promise<FileHandle>
    export function realpath(path: string): Promise<string>
    export function rename(from: string, to: string): Promise<void>
    export function rm(path: string, options: { force: boolean }): Promise<void>
    export function stat(path: string, options: { bigint: true }): Promise<Stats<bigint>>
}

declare module "node:net" {
    export interface Socket {
        destroy(): void
        once(event: "connect", listener: () => void): void
        once(event: "error", listener: (error: Error) => void): void
    }
    export interface Server {
        once(event: "error", listener: (error: Error) => void): void
        listen(path: string, listening: () => void): void
        unref(): void
        close(closed: () => void): void
    }
    export function createServer(connection: (socket: Socket) => void): Server
    export function connect(path: string): Socket
}

declare module "node:path" {
    export function basename(path: string): string
    export function dirname(path: string): string
    export function join(...paths: string[]): string
    export function resolve(path: string): string
}

declare module "node:os" {
    export function tmpdir(): string
}

declare module "node:crypto" {
    export function createHash(name: string): { update(text: string): { digest(encoding: "hex"): string } }
    export function randomBytes(length: number): import("node:buffer").Buffer
}

declare module "node:zlib" {
    export function crc32(bytes: Uint8Array, before?: number): number
}

declare module "node:process" {
    export const platform: string
}

declare module "node:buffer" {
    export interface Buffer extends Uint8Array<ArrayBuffer> {
        readUInt32LE(offset: number): number
        writeUInt32LE(value: number, offset: number): void
        writeDoubleLE(value: number, offset: number): void
        write(text: string, encoding: "latin1"): void
        toString(): string
        indexOf(bytes: Uint8Array | number, from?: number): number
        subarray(from?: number, to?: number): Buffer
    }
    export const Buffer: {
        alloc(length: number): Buffer
        from(source: string | ArrayBuffer | Uint8Array): Buffer
        concat(parts: readonly Uint8Array[]): Buffer
    }
}

declare module "ws" {
    export const WebSocket: typeof globalThis.WebSocket
}
