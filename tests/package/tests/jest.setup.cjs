// What jest's jsdom lacks, and the package needs.
const { TextDecoder, TextEncoder } = require("node:util")

Object.assign(globalThis, { TextDecoder, TextEncoder })
