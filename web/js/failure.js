// The sentence of an error in the node that failed or was refused, until the next run: the page itself shows it two
// clicks away.

import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { addStyle } from "./canvas.js"
import { Memory } from "./memory.js"

const WIDGET = "imtalker_failure"
const MARGIN = 16 // pixels beside a widget
const PADDING = 20 // pixels above and below a widget together
const LONGEST = 600 // characters
const WATCH = 100 // ms between two looks for a refusal, which no event announces
const failures = new Memory() // an undo or another tab makes the nodes anew
const shown = new Map() // node: {widget, before, during: its height, onSerialize: what the node had}

const STYLE = `
.imtalker-failure { box-sizing: border-box; width: 100%; padding: 6px 8px; border-radius: 6px; overflow: hidden;
  font: 12px/1.4 Inter, Arial, sans-serif; overflow-wrap: anywhere; white-space: pre-line; pointer-events: none;
  color: var(--input-text); background: var(--comfy-input-bg); border: 1px solid var(--error-text, #ff4444);
  border-left-width: 4px; }
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
  return height + PADDING
}

function show(node, sentence) {
  hide(node)
  addStyle("imtalker-failure", STYLE)
  const root = Object.assign(document.createElement("div"), { className: "imtalker-failure", textContent: sentence })
  root.setAttribute("role", "alert")
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
  node.setSize([size[0], Math.max(size[1] + height, node.computeSize()[1])])
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

function fail(id, kind, sentence) {
  const nodes = nodesOf(id)
  if (!kind?.startsWith("IMTalker") || nodes.at(-1)?.comfyClass !== kind) return // of another tab, perhaps
  const text = sentence.length > LONGEST ? `${sentence.slice(0, LONGEST)} …` : sentence
  for (const node of nodes) {
    failures.set(node, text)
    show(node, text)
  }
}

function clear() {
  failures.clear()
  for (const node of [...shown.keys()]) hide(node)
}

/** The sentences of `validate_inputs`, which ComfyUI repeats for each input that may be meant, after its name. */
function refuse(errors) {
  for (const [id, node] of Object.entries(errors)) {
    const inputs = {} // by sentence
    for (const { type, details } of node.errors) {
      const [, input, sentence] = (type === "custom_validation_failed" && details.match(/^(\w+) - (.*)$/s)) || []
      if (sentence) (inputs[sentence] ??= []).push(input)
    }
    const named = Object.entries(inputs).map(([sentence, [input, ...others]]) =>
      others.length || sentence.startsWith(`${input}:`) ? sentence : `${input}: ${sentence}`,
    )
    if (named.length) fail(id, node.class_type, named.join("\n"))
  }
}

let watching = 0

function stopWatching() {
  clearInterval(watching)
  watching = 0
}

app.registerExtension({
  name: "IMTalker.failure",
  setup() {
    api.addEventListener("execution_error", ({ detail }) => {
      fail(detail.node_id, detail.node_type, detail.exception_message.trim())
    })
    api.addEventListener("execution_start", clear)
    // newer pages only: 1.27 shows a refusal's sentence at once
    api.addEventListener("promptQueueing", () => {
      clear()
      const before = app.lastNodeErrors
      watching ||= setInterval(() => {
        const errors = app.lastNodeErrors
        if (!errors || errors === before) return
        stopWatching()
        refuse(errors)
      }, WATCH)
    })
    api.addEventListener("promptQueued", stopWatching)
  },
  loadedGraphNode(node) {
    const sentence = failures.get(node)
    if (sentence) show(node, sentence)
  },
})
