// What an editor holds: the curves in the node's text, what of them is selected and where the playhead is; and what can
// be done to them. The text is the whole state of the node, so a graph runs without us.

import { app } from "../../../scripts/app.js"
import * as k from "./keyframes.js"
import { Memory } from "./memory.js"

const DEFAULT_SECONDS = 4
const waveforms = new Memory()
const views = new Memory() // playhead and active channel

export class State {
  /** `spec`: the channels and presets of imtalker/motion/keyframes.py; `changed()` is called when there is more to show. */
  constructor(node, spec, changed) {
    Object.assign(this, { node, channels: spec.channels, presets: spec.presets, names: Object.keys(spec.channels) })
    Object.assign(this, { changed, curves: {}, selected: new Set(), text: null, error: "", held: null, used: null })
    Object.assign(this, { playhead: 0, active: this.names[0], waveform: null })
    this.source = this.find("keyframes")
  }

  find(name) {
    return this.node.widgets.find((widget) => widget.name === name)
  }

  // The text

  /** Takes over what someone else wrote into the input: a graph loaded, an undo, a script. */
  sync() {
    if (this.held || this.source.value === this.text) return
    this.text = this.source.value
    this.selected = new Set()
    this.used = null
    try {
      this.curves = k.parse(String(this.text), this.names)
      this.error = ""
    } catch (error) {
      this.curves = {}
      this.error = error.message
    }
  }

  /** Writes the curves, as one step that the graph's own undo takes back. */
  commit() {
    const text = k.serialise(this.curves)
    this.changed()
    if (text === this.source.value) return
    app.canvas?.emitBeforeChange?.()
    this.text = text
    this.source.value = text
    this.source.callback?.(text)
    app.canvas?.emitAfterChange?.()
    this.node.setDirtyCanvas?.(true, true)
  }

  /** `used`: the preset that the change comes from, which another size of it would replace. */
  change(curves, selected = new Set(), used = null) {
    Object.assign(this, { curves, selected, used })
    this.commit()
  }

  /** Whether an edit may begin: not during a drag; and a text that cannot be read stays until it is cleared. */
  usable() {
    if (this.held) return false
    this.sync()
    return !this.error
  }

  /** From here until `letGo` a hand changes the curves: nobody else's text is taken over, and the time shown stays. */
  hold() {
    this.held = { seconds: this.shown(), before: this.curves }
  }

  letGo() {
    const { before } = this.held
    this.held = null
    if (this.curves !== before) this.change(this.curves, this.selected)
  }

  // Time and values

  more() {
    return Boolean(this.find("allow_more")?.value)
  }

  hasAudio() {
    return this.node.inputs?.some((input) => input.name === "audio" && input.link != null)
  }

  /** Seconds of the control, as far as they are known before a run. */
  duration() {
    const set = Number(this.find("seconds")?.value) || 0
    if (set > 0) return set
    if (this.hasAudio() && this.waveform) return this.waveform.seconds
    return Math.max(DEFAULT_SECONDS, Math.ceil(k.lastTime(this.curves) + 0.2))
  }

  /** Seconds that the timeline shows. */
  shown() {
    return this.held?.seconds ?? Math.max(this.duration(), k.lastTime(this.curves))
  }

  value(name, time = this.playhead) {
    const curve = this.curves[name]
    if (!curve?.length) return this.channels[name].rest
    return k.clamp(k.valueAt(curve, time), ...k.range(this.channels[name], this.more()))
  }

  /** Curves with a keyframe at the playhead. */
  withValue(curves, name, value) {
    const channel = this.channels[name]
    const inside = k.tidy(channel, k.clamp(value, ...k.range(channel, this.more())))
    return k.withKeyframe(curves, name, k.snap(this.playhead), inside)
  }

  // What can be done

  setPlayhead(time) {
    this.playhead = k.clamp(k.snap(time), 0, this.shown())
    this.changed()
  }

  /** Where the end has come nearer, by fewer seconds, a shorter sound or another text, the playhead comes with it. */
  keepPlayhead() {
    this.playhead = Math.min(this.playhead, this.shown())
  }

  /** A keyframe at the playhead. */
  setValue(name, value = this.value(name)) {
    if (!this.usable()) return
    const curves = this.withValue(this.curves, name, value)
    const at = k.snap(this.playhead)
    this.change(curves, new Set(curves[name].filter(([time]) => time === at)))
  }

  select(keyframes) {
    this.selected = new Set(keyframes)
    this.changed()
  }

  remove(all = false) {
    if (this.usable()) {
      const selected = this.selected.size || !all ? this.selected : new Set(this.curves[this.active])
      if (selected.size) this.change(k.without(this.curves, selected))
    } else if (this.error) {
      this.error = ""
      this.change({})
    }
  }

  /** Without a name: the one used last, in another size. */
  applyPreset(amount, wanted) {
    if (!this.usable()) return
    const name = wanted || this.used
    if (!name) return
    const made = k.expand(this.presets[name], this.duration(), amount, this.channels)
    this.change({ ...this.curves, ...k.limited(made, this.channels, this.more()) }, new Set(), name)
  }

  /** The selected keyframes, or else the playhead, in time. */
  shift(seconds) {
    if (!this.selected.size) return this.setPlayhead(this.playhead + seconds)
    const { curves, selected } = k.moved(this.curves, this.selected, seconds, {}, this.channels, this.more())
    this.playhead = Math.min(...[...selected].map(([time]) => time))
    this.change(curves, selected)
  }

  /** The selected keyframes, or else the value at the playhead, by so many of the channel's steps. */
  raise(steps) {
    const by = steps * this.channels[this.active].step
    if (!this.selected.size) return this.setValue(this.active, this.value(this.active) + by)
    const changes = Object.fromEntries(this.names.map((name) => [name, steps * this.channels[name].step]))
    const { curves, selected } = k.moved(this.curves, this.selected, 0, changes, this.channels, this.more())
    this.change(curves, selected)
  }

  /** The channel so many lanes below. */
  activate(by) {
    this.active = this.names[k.clamp(this.names.indexOf(this.active) + by, 0, this.names.length - 1)]
    this.select([])
  }

  /** Keyframes of a text, from the playhead on; throws an Error where it holds none. */
  paste(text) {
    const part = k.limited(k.parse(text, this.names), this.channels, this.more())
    const { curves, selected } = k.pasted(this.curves, part, k.snap(this.playhead))
    if (selected.size) this.change(curves, selected)
  }

  // What outlives the node

  keepWaveform(waveform) {
    waveforms.set(this.node, waveform)
  }

  keepView() {
    views.set(this.node, { playhead: this.playhead, active: this.active })
  }

  restore() {
    this.waveform = waveforms.get(this.node)
    const view = views.get(this.node)
    if (view && this.names.includes(view.active)) Object.assign(this, view)
    this.changed()
  }
}
