// The inputs of an editor's node as they will be in a run, also where they are linked or promoted out of a subgraph.

import { isLinked, linkedValue, sourcesOf } from "./links.js"

export class NodeInputs {
  constructor(node) {
    this.node = node
    this.source = this.widget("keyframes")
  }

  widget(name) {
    return this.node.widgets.find((widget) => widget.name === name)
  }

  /** Undefined if only a run will tell. */
  value(name) {
    return isLinked(this.node, name) ? linkedValue(this.node, name) : this.widget(name)?.value
  }

  /** The widget with the keyframes: the node's, or the one that the subgraph around it shows. Null: it is not ours. */
  textWidget() {
    if (!isLinked(this.node, "keyframes")) return this.source
    const sources = sourcesOf(this.node, "keyframes")
    return sources.length === 1 ? (sources[0].widget ?? null) : null
  }

  /** The keyframes as JSON; empty if unknown. */
  text() {
    const widget = this.textWidget()
    return String((widget ? widget.value : linkedValue(this.node, "keyframes")) ?? "")
  }

  hasAudio() {
    return isLinked(this.node, "audio")
  }

  /** The sound's file if it comes straight from Load Audio: a name in the input folder, perhaps with "[output]". */
  audioFile() {
    const sources = sourcesOf(this.node, "audio")
    const loader = sources.length === 1 && sources[0].node?.comfyClass === "LoadAudio" ? sources[0].node : null
    return loader?.widgets?.find((widget) => widget.name === "audio")?.value || null
  }
}
