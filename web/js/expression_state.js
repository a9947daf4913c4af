// What the expression editor holds: the usual channels, and those that keyframes or a rig bring. Which the rig of the last
// run has is known from its message; a channel that it lacks stays in the text.

import { parse } from "./keyframes.js"
import { Memory } from "./memory.js"
import { State } from "./state.js"

const runs = new Memory() // the last run's message, see nodes/expression.py
const opened = new Memory() // names of the lanes beside the usual ones

export class ExpressionState extends State {
  constructor(node, spec, onChange) {
    super(node, { ...spec, channels: { ...spec.channels } }, onChange)
    this.known = null
    this.usual = this.names
    this.run = null // {seconds, channels, lacking, one_for_both, blinks}
  }

  sync() {
    super.sync()
    this.open(Object.keys(this.curves))
  }

  paste(text) {
    this.open(Object.keys(parse(text, null)))
    super.paste(text)
  }

  /** Gives these channels lanes. */
  open(names) {
    const added = names.filter((name) => !this.names.includes(name))
    if (added.length) this.#show([...this.names, ...added])
  }

  /** Takes away the lane of a channel without keyframes. */
  close(name) {
    if (!this.curves[name]?.length) this.#show(this.names.filter((one) => one !== name))
  }

  #show(names) {
    const like = this.channels[this.usual[0]]
    for (const name of names) this.channels[name] ??= { ...like, label: name, positive: name }
    this.names = names
    if (!names.includes(this.active)) this.active = names[0]
    opened.set(this.node, names.slice(this.usual.length))
    this.onLanes?.()
  }

  /** The rig's channels beside the usual ones, or those that have lanes while no rig is known. */
  others() {
    const all = [...(this.run?.channels ?? []), ...this.names]
    return [...new Set(all)].filter((name) => !this.usual.includes(name))
  }

  /** Why the rig of the last run cannot move a channel; empty if it can, or if there was no run. */
  reason(name) {
    return this.run?.lacking[name] ?? ""
  }

  /** The channels with keyframes that move nothing. */
  idle() {
    return this.names.filter((name) => this.curves[name]?.length && this.reason(name))
  }

  givenSeconds() {
    return super.givenSeconds() ?? this.run?.seconds ?? null
  }

  saveRun(run) {
    runs.set(this.node, run)
  }

  restore() {
    this.run = runs.get(this.node)
    this.open(opened.get(this.node) ?? [])
    super.restore()
  }
}
