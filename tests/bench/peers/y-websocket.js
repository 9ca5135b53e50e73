// The server of y-websocket, in memory: it stores nothing.

import { createRequire } from "node:module"
import { createServer } from "node:http"

const require = createRequire(import.meta.url)
const { setupWSConnection } = require("y-websocket/bin/utils")
// The version that it brings along.
const { Server } = createRequire(require.resolve("y-websocket/bin/utils"))("ws")

const http = createServer()
const sockets = new Server({ server: http })
sockets.on("connection", setupWSConnection)
http.listen(0, "127.0.0.1", () =>
  console.log(`listening on 127.0.0.1:${http.address().port}`)
)
