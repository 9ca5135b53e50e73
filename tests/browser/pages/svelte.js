// A small app in Svelte: the title of a document, its items, who else is there.

import { mount, unmount } from "svelte"
import * as reconverge from "../../../wasm/dist/browser.js"
import App from "./App.svelte"

window.reconverge = reconverge
let app
let handle

window.show = async ({ url, name }) => {
  handle = await repo.find(url)
  app = mount(App, { target: document.body, props: { handle, name } })
}

window.unmount = () => {
  unmount(app)
  handle.release()
}
