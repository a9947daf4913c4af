// The sentence of an error in the node that failed, until the next run: the page itself shows it two clicks away.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { addStyle } from "./canvas.js"
import { Memory } from "./memory.js"

const WIDGET = "imtalker_failure"
const MARGIN = 16 // pixels beside and between widgets
const failures = new Memory() // an undo or another tab makes the nodes anew
const shown = new Map() // node: {widget, before, during: its height, onSerialize: what the node had}

const STYLE = `
.imtalker-failure { box-sizing: border-box; width: 100%; padding: 6px 8px; border-radius: 6px; overflow: auto;
  font: 12px/1.4 Inter, Arial, sans-serif; overflow-wrap: anywhere; white-space: pre-line; user-select: text; cursor: text;
  color: var(--input-text); background: var(--comfy-input-bg); border: 1px solid var(--error-text, #ff4444);
  border-left-width: 4px; pointer-events: auto; }
`

/** The node that an id like "5:3" names, after the subgraphs' nodes around it. */
function nodesOf(id) {
  const found = []
  let graph = app.rootGraph ?? app.graph
  for (const part of String(id).split(":")) {
    const node = graph?.nodes.find((one) => String(one.id) === part)
    if (!node) return []
    found.push(node)
    graph = node.subgraph
  }
  return found
}

/** Its height in pixels in a node of this width. */
function heightOf(sentence, width) {
  const trial = Object.assign(document.createElement("div"), { className: "imtalker-failure", textContent: sentence })
  Object.assign(trial.style, { position: "absolute", visibility: "hidden", width: `${width - 2 * MARGIN}px` })
  document.body.append(trial)
  const height = trial.offsetHeight
  trial.remove()
  return height
}

function show(node, sentence) {
  hide(node)
  addStyle("imtalker-failure", STYLE)
  const root = Object.assign(document.createElement("div"), { className: "imtalker-failure", textContent: sentence })
  root.setAttribute("role", "alert")
  root.addEventListener("pointerdown", (event) => event.stopPropagation()) // to select the text
  const size = [...node.size]
  const height = heightOf(sentence, size[0])
  const widget = node.addDOMWidget(WIDGET, "IMTALKER_FAILURE", root, {
    serialize: false,
    hideOnZoom: false,
    hideInPanel: true,
    getMinHeight: () => height,
    getMaxHeight: () => height,
  })
  widget.serialize = false
  node.setSize([size[0], Math.max(size[1] + height + MARGIN, node.computeSize()[1])])
  const { onSerialize } = node, [, during] = node.size
  node.onSerialize = function (saved) {
    onSerialize?.call(this, saved)
    if (this.size[1] === during) saved.size = [this.size[0], size[1]] // a workflow saved meanwhile has it as it was
  }
  shown.set(node, { widget, before: size[1], during, onSerialize })
  node.graph?.setDirtyCanvas(true, true)
}

function hide(node) {
  const { widget, before, during, onSerialize } = shown.get(node) ?? {}
  if (!shown.delete(node)) return
  node.removeWidget(widget)
  node.onSerialize = onSerialize
  if (node.size[1] === during) node.setSize([node.size[0], before]) // or else the artist has resized it
  node.graph?.setDirtyCanvas(true, true)
}

app.registerExtension({
  name: "IMTalker.failure",
  setup() {
    api.addEventListener("execution_error", ({ detail }) => {
      const nodes = nodesOf(detail.node_id)
      if (!detail.node_type.startsWith("IMTalker") || nodes.at(-1)?.comfyClass !== detail.node_type) return
      for (const node of nodes) {
        failures.set(node, detail.exception_message.trim())
        show(node, failures.get(node))
      }
    })
    api.addEventListener("execution_start", () => {
      failures.clear()
      for (const node of [...shown.keys()]) hide(node)
    })
  },
  loadedGraphNode(node) {
    const sentence = failures.get(node)
    if (sentence) show(node, sentence)
  },
})
