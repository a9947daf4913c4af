// What a keyframe editor holds (curves, selection, playhead) and the edits it can make. Only the node's text input is
// saved, so a graph also runs without the editor.

import { app } from "../../../scripts/app.js"
import { Memory } from "./memory.js"
import {
  clamp, clamped, expand, lastTime, moved, parse, pasted, range, serialise, snap, tidy, valueAt, withKeyframe, without,
} from "./keyframes.js"

const DEFAULT_SECONDS = 4
const waveforms = new Memory()
const views = new Memory() // playhead and active channel

export class State {
  /** spec: the channels and presets of imtalker/motion/keyframes.py. `onChange()` is called when a redraw is due. */
  constructor(node, spec, onChange) {
    Object.assign(this, { node, onChange, channels: spec.channels, presets: spec.presets })
    this.names = Object.keys(spec.channels)
    this.source = this.widget("keyframes")
    this.text = null // of the source, as last read or written
    this.error = "" // why the text cannot be read
    this.curves = {}
    this.selected = new Set() // keyframes of the curves
    this.playhead = 0 // seconds
    this.active = this.names[0]
    this.lastPreset = null // the preset whose curves are unchanged since, if any
    this.waveform = null // {peaks, seconds}, from the last run
    this.drag = null // {seconds, curves} when the drag in progress started
  }

  widget(name) {
    return this.node.widgets.find((widget) => widget.name === name)
  }

  // The text

  /** Reads the text if something else wrote it: a loaded graph, an undo, a script. */
  sync() {
    if (this.drag || this.source.value === this.text) return
    this.text = this.source.value
    this.selected = new Set()
    this.lastPreset = null
    try {
      this.curves = parse(String(this.text), this.names)
      this.error = ""
    } catch (error) {
      this.curves = {}
      this.error = error.message
    }
  }

  /** Writes the text, as one step of the graph's undo. */
  commit() {
    const text = serialise(this.curves)
    this.onChange()
    if (text === this.source.value) return
    app.canvas?.emitBeforeChange?.()
    this.text = text
    this.source.value = text
    this.source.callback?.(text)
    app.canvas?.emitAfterChange?.()
    this.node.setDirtyCanvas?.(true, true)
  }

  change(curves, selected = new Set(), lastPreset = null) {
    Object.assign(this, { curves, selected, lastPreset })
    this.commit()
  }

  /** False during a drag, and while the text cannot be read: it stays as it is until it is cleared. */
  canEdit() {
    if (this.drag) return false
    this.sync()
    return !this.error
  }

  /** Until `endDrag`, changes from elsewhere are ignored and the timeline keeps its length. */
  startDrag() {
    this.drag = { seconds: this.shownSeconds(), curves: this.curves }
  }

  endDrag() {
    const { curves } = this.drag
    this.drag = null
    if (this.curves !== curves) this.change(this.curves, this.selected)
  }

  // Times and values

  allowsMore() {
    return Boolean(this.widget("allow_more")?.value)
  }

  hasAudio() {
    return this.node.inputs?.some((input) => input.name === "audio" && input.link != null)
  }

  /** Seconds of the control, as far as known before a run. */
  duration() {
    const seconds = Number(this.widget("seconds")?.value) || 0
    if (seconds > 0) return seconds
    if (this.hasAudio() && this.waveform) return this.waveform.seconds
    return Math.max(DEFAULT_SECONDS, Math.ceil(lastTime(this.curves) + 0.2))
  }

  /** Seconds that the timeline shows. */
  shownSeconds() {
    return this.drag?.seconds ?? Math.max(this.duration(), lastTime(this.curves))
  }

  range(name) {
    return range(this.channels[name], this.allowsMore())
  }

  value(name, time = this.playhead) {
    const curve = this.curves[name]
    if (!curve?.length) return this.channels[name].rest
    return clamp(valueAt(curve, time), ...this.range(name))
  }

  /** The curves with a keyframe at the playhead. */
  withValue(curves, name, value) {
    return withKeyframe(curves, name, snap(this.playhead), tidy(this.channels[name], clamp(value, ...this.range(name))))
  }

  // Edits

  setPlayhead(time) {
    this.playhead = clamp(snap(time), 0, this.shownSeconds())
    this.onChange()
  }

  /** Keeps the playhead inside the timeline, which becomes shorter with the seconds, the audio or the text. */
  limitPlayhead() {
    this.playhead = Math.min(this.playhead, this.shownSeconds())
  }

  /** Sets a keyframe at the playhead. */
  setValue(name, value = this.value(name)) {
    if (!this.canEdit()) return
    const curves = this.withValue(this.curves, name, value)
    const now = snap(this.playhead)
    this.change(curves, new Set(curves[name].filter(([time]) => time === now)))
  }

  select(keyframes) {
    this.selected = new Set(keyframes)
    this.onChange()
  }

  /** Removes the selected keyframes; with `all` and none selected, those of the active channel, or a text in error. */
  remove(all = false) {
    if (this.canEdit()) {
      const selected = this.selected.size || !all ? this.selected : new Set(this.curves[this.active])
      if (selected.size) this.change(without(this.curves, selected))
    } else if (this.error) {
      this.error = ""
      this.change({})
    }
  }

  /** Without a name: the last preset again, at another size. */
  applyPreset(amount, name) {
    if (!this.canEdit()) return
    name ||= this.lastPreset
    if (!name) return
    const curves = expand(this.presets[name], this.duration(), amount, this.channels)
    this.change({ ...this.curves, ...clamped(curves, this.channels, this.allowsMore()) }, new Set(), name)
  }

  /** Moves the selected keyframes, or else the playhead. */
  moveInTime(seconds) {
    if (!this.selected.size) return this.setPlayhead(this.playhead + seconds)
    const { curves, selected } = this.moved(seconds, {})
    this.playhead = Math.min(...[...selected].map(([time]) => time))
    this.change(curves, selected)
  }

  /** Changes the selected keyframes, or else the value at the playhead, by this many of each channel's steps. */
  changeValue(steps) {
    const change = (name) => steps * this.channels[name].step
    if (!this.selected.size) return this.setValue(this.active, this.value(this.active) + change(this.active))
    const { curves, selected } = this.moved(0, Object.fromEntries(this.names.map((name) => [name, change(name)])))
    this.change(curves, selected)
  }

  /** The selected keyframes moved in time and, by channel, in value: the new {curves, selected}. */
  moved(seconds, changes, { curves, selected } = this) {
    return moved(curves, selected, seconds, changes, this.channels, this.allowsMore())
  }

  /** Activates the channel this many lanes below. */
  changeChannel(lanes) {
    this.active = this.names[clamp(this.names.indexOf(this.active) + lanes, 0, this.names.length - 1)]
    this.select([])
  }

  /** Inserts keyframes from a text at the playhead; throws an Error if it holds none. */
  paste(text) {
    const copied = clamped(parse(text, this.names), this.channels, this.allowsMore())
    const { curves, selected } = pasted(this.curves, copied, snap(this.playhead))
    if (selected.size) this.change(curves, selected)
  }

  // Kept when an undo recreates the node

  saveWaveform(waveform) {
    waveforms.set(this.node, waveform)
  }

  saveView() {
    views.set(this.node, { playhead: this.playhead, active: this.active })
  }

  restore() {
    this.waveform = waveforms.get(this.node)
    const view = views.get(this.node)
    if (view && this.names.includes(view.active)) Object.assign(this, view)
    this.onChange()
  }
}
