import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["acceptance.js"],
    // automerge-repo finds its WebAssembly only when it is loaded as it is
    server: { deps: { external: [/node_modules/] } },
    testTimeout: 4_000,
    pool: "forks",
    poolOptions: { forks: { singleFork: true } },
  },
})
