// A counter in Svelte.

import { Counter } from "@automerge/automerge-repo"
import { mount } from "svelte"
import App from "./Counter.svelte"
import { documentOf, ofTab } from "./repo.js"

const repo = ofTab()
const { url } = await documentOf(repo, { count: new Counter() })
mount(App, { target: document.body, props: { repo, url } })
