// The choices of combos in the page's language, from the options in locales/*/nodeDefs.json: the page itself translates
// only names and tooltips. The value stays English, so a workflow runs in every language. Frontend 1.27 shows it as it is.

import { app } from "../../../scripts/app.js"
import { choices } from "./texts.js"

app.registerExtension({
  name: "IMTalker.combos",
  nodeCreated(node) {
    for (const widget of node.widgets ?? []) {
      const labels = choices(node.comfyClass, widget.name)
      if (labels) widget.options.getOptionLabel = (value) => labels[value] ?? value
    }
  },
})
