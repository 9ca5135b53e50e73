// For Node.js, as a CommonJS module.

const reconverge = require("reconverge")
const { use } = require("./use.mjs")

use(reconverge).then(value => console.log(`outcome: ${JSON.stringify(value)}`))
