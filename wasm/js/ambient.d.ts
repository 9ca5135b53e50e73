// What the entries import besides TypeScript. Not the types of Node.js: these would put its
// globals into code that runs in a page.

declare module "*.wasm" {
    const module: WebAssembly.Module
    export default module
}

declare module "node:fs" {
    export function readFileSync(path: URL): Uint8Array<ArrayBuffer>
}

declare module "ws" {
    export const WebSocket: typeof globalThis.WebSocket
}
