// What a keyframe editor holds (curves, selection, playhead, view) and the edits it can make. Only the keyframes' text
// is saved, so a graph also runs without the editor.

import { app } from "../../../scripts/app.js"
import { NodeInputs } from "./inputs.js"
import { Memory } from "./memory.js"
import {
  amplified, clamp, clamped, copied, easingOf, EASINGS, inserted, lastTime, MAX_SECONDS, moved, parse, pasted,
  range, serialise, snap, span, stretched, tidy, valueAt, withEasing, withKeyframe, without,
} from "./keyframes.js"
import { fitted, revealing } from "./view.js"

const DEFAULT_SECONDS = 4
const waveforms = new Memory()
const views = new Memory() // what is kept of the view, see saveView

export class State {
  /** spec: the channels and presets of imtalker/motion. `onChange()` is called when a redraw is due. */
  constructor(node, spec, onChange) {
    Object.assign(this, { node, onChange, channels: spec.channels, presets: spec.presets })
    this.names = Object.keys(spec.channels)
    this.known = this.names // channels that a text may have; null: any
    this.inputs = new NodeInputs(node)
    this.text = null // the keyframes as last read or written
    this.error = "" // why the text cannot be read
    this.curves = {}
    this.selected = new Set() // keyframes of the curves
    this.playhead = 0 // seconds
    this.active = this.names[0]
    this.view = null // see view.js
    this.loop = null // [first, last] seconds that are played again and again
    this.frames = false // whether the ruler counts frames rather than seconds
    this.preset = null // {name, start, curves}: the last one and what was there before it, until something else changes
    this.heard = null // {seconds, peaks}, from the sound's file; see sound.js
    this.ran = null // the same from the last run
    this.drag = null // {seconds, curves} when the drag in progress started
  }

  // The text

  /** Reads the text if something else wrote it: a loaded graph, an undo, a script. */
  sync() {
    const text = this.inputs.text()
    if (this.drag || text === this.text) return
    this.text = text
    this.selected = new Set()
    this.preset = null
    try {
      this.curves = parse(text, this.known)
      this.error = ""
    } catch (error) {
      this.curves = {}
      this.error = error.message
    }
  }

  /** Writes the text, as one step of the graph's undo. */
  commit() {
    const text = serialise(this.curves), widget = this.inputs.textWidget()
    this.onChange()
    if (!widget || text === widget.value) return
    app.canvas?.emitBeforeChange?.()
    this.text = text
    widget.value = text
    widget.callback?.(text)
    app.canvas?.emitAfterChange?.()
    this.node.setDirtyCanvas?.(true, true)
  }

  change({ curves, selected = new Set() }, preset = null) {
    Object.assign(this, { curves, selected, preset })
    this.commit()
  }

  /** Whether another node, or several uses of a subgraph, hold the text: it can be looked at, but not changed here. */
  isForeign() {
    return !this.inputs.textWidget()
  }

  /** False during a drag, for another's text, and while the text cannot be read: it stays until it is cleared. */
  canEdit() {
    if (this.drag) return false
    this.sync()
    return !this.error && !this.isForeign()
  }

  /** Until `endDrag`, changes from elsewhere are ignored and the timeline keeps its length. */
  startDrag() {
    this.drag = { seconds: this.shownSeconds(), curves: this.curves }
  }

  endDrag() {
    const { curves } = this.drag
    this.drag = null
    if (this.curves !== curves) this.change(this)
  }

  // Times and values

  allowsMore() {
    return Boolean(this.inputs.value("allow_more"))
  }

  waveform() {
    return this.inputs.hasAudio() ? (this.heard ?? this.ran) : null
  }

  /** Seconds of the control as far as known before a run, or null: then the last keyframe decides. */
  givenSeconds() {
    const seconds = Number(this.inputs.value("seconds")) || 0
    return seconds > 0 ? Math.min(seconds, MAX_SECONDS) : (this.waveform()?.seconds ?? null)
  }

  /** Seconds of the clip: what is played, and what a preset stays within. */
  duration() {
    return this.givenSeconds() ?? Math.max(DEFAULT_SECONDS, lastTime(this.curves))
  }

  /** Seconds that the timeline can show: without a given length, there is room to add something after the end. */
  shownSeconds() {
    if (this.drag) return this.drag.seconds
    const last = lastTime(this.curves), given = this.givenSeconds()
    return given === null ? Math.max(DEFAULT_SECONDS, Math.ceil(last + 0.2)) : Math.max(given, last)
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

  /** The keyframes that an edit without a place changes: the selected ones, or the last one before the playhead. */
  chosen() {
    if (this.selected.size) return this.selected
    const before = this.curves[this.active]?.filter(([time]) => time <= this.playhead + 1e-6) ?? []
    return new Set(before.slice(-1))
  }

  /** The easing of the chosen keyframes: that of the first. */
  easing() {
    const [first] = this.chosen()
    return first ? easingOf(first) : EASINGS[0]
  }

  // Edits

  setPlayhead(time) {
    this.playhead = clamp(snap(time), 0, this.shownSeconds())
    this.view = revealing(this.view, this.shownSeconds(), this.playhead)
    this.onChange()
  }

  /** Keeps playhead, view and loop inside the timeline, which becomes shorter with the seconds, the audio or the text. */
  limit() {
    const whole = this.shownSeconds()
    this.playhead = Math.min(this.playhead, whole)
    this.view = fitted(this.view, whole)
    if (this.loop && this.loop[0] >= whole) this.loop = null
  }

  /** Sets a keyframe at the playhead. */
  setValue(name, value = this.value(name)) {
    if (!this.canEdit()) return
    const curves = this.withValue(this.curves, name, value)
    const now = snap(this.playhead)
    this.change({ curves, selected: new Set(curves[name].filter(([time]) => time === now)) })
  }

  select(keyframes) {
    this.selected = new Set(keyframes)
    this.onChange()
  }

  /** Removes the selected keyframes; with `all` and none selected, those of the active channel, or a text in error. */
  remove(all = false) {
    if (this.canEdit()) {
      const selected = this.selected.size || !all ? this.selected : new Set(this.curves[this.active])
      if (selected.size) this.change({ curves: without(this.curves, selected) })
    } else if (this.error && !this.isForeign()) {
      this.error = ""
      this.change({ curves: {} })
    }
  }

  /** Without a name: the last preset again, in the same place. seconds: its length. */
  applyPreset({ amount, seconds, name, start }) {
    if (!this.canEdit()) return // which also forgets the last preset if someone else has written
    name ??= this.preset?.name
    if (!name) return
    const again = this.preset?.name === name && start === undefined ? this.preset : null
    const curves = again?.curves ?? this.curves
    const where = { start: again?.start ?? start ?? snap(this.playhead), seconds, end: this.duration(), amount }
    const found = inserted(curves, this.presets[name], where, this.channels, this.allowsMore())
    this.change(found, { name, start: where.start, curves })
  }

  /** Moves the selected keyframes, or else the playhead. */
  moveInTime(seconds) {
    if (!this.selected.size) return this.setPlayhead(this.playhead + seconds)
    const found = this.moved(seconds, {})
    this.playhead = span(found.selected)[0]
    this.view = revealing(this.view, this.shownSeconds(), this.playhead)
    this.change(found)
  }

  /** Changes the selected keyframes, or else the value at the playhead, by this many of each channel's steps. */
  changeValue(steps) {
    const change = (name) => steps * this.channels[name].step
    if (!this.selected.size) return this.setValue(this.active, this.value(this.active) + change(this.active))
    this.change(this.moved(0, Object.fromEntries(this.names.map((name) => [name, change(name)]))))
  }

  /** The selected keyframes moved in time and, by channel, in value: the new {curves, selected}. */
  moved(seconds, changes, { curves, selected } = this) {
    return moved(curves, selected, seconds, changes, this.channels, this.allowsMore())
  }

  setEasing(easing) {
    const chosen = this.chosen()
    if (chosen.size) this.change(withEasing(this.curves, chosen, easing))
  }

  /** Stretches the selection in time from its start, never past the end of the timeline. */
  stretch(factor) {
    if (this.selected.size < 2) return
    const [first, last] = span(this.selected)
    const most = (this.shownSeconds() - first) / (last - first || 1)
    this.change(stretched(this.curves, this.selected, first, Math.min(factor, most)))
  }

  /** Multiplies the selected keyframes' distances from rest. */
  amplify(factor) {
    if (this.selected.size) this.change(amplified(this.curves, this.selected, factor, this.channels, this.allowsMore()))
  }

  /** Activates the channel this many lanes below. */
  changeChannel(lanes) {
    this.active = this.names[clamp(this.names.indexOf(this.active) + lanes, 0, this.names.length - 1)]
    this.select([])
  }

  /** Moves the playhead to the keyframe before (-1) or after (1) it, of any channel, and selects those there. */
  jump(direction) {
    const all = Object.values(this.curves).flat()
    const times = all.map(([time]) => time).filter((time) => (time - this.playhead) * direction > 0.5 / 1000)
    if (!times.length) return
    const time = direction > 0 ? Math.min(...times) : Math.max(...times)
    this.select(all.filter((keyframe) => keyframe[0] === time))
    this.playhead = time
    this.view = revealing(this.view, this.shownSeconds(), time)
  }

  /** Starts (side 0) or ends (side 1) the loop at the playhead. */
  setLoop(side) {
    const loop = this.loop ? [...this.loop] : [0, this.duration()]
    loop[side] = this.playhead
    this.loop = loop[1] > loop[0] ? loop : null
    this.onChange()
  }

  /** The selected keyframes as a text. */
  copy() {
    return copied(this.curves, this.selected)
  }

  /** Inserts keyframes from a text at the playhead; throws an Error if it holds none. */
  paste(text) {
    const part = clamped(parse(text, this.known), this.channels, this.allowsMore())
    const found = pasted(this.curves, part, snap(this.playhead))
    if (found.selected.size) this.change(found)
  }

  // Kept when an undo recreates the node

  saveWaveform(waveform) {
    waveforms.set(this.node, waveform)
  }

  saveView() {
    const { playhead, active, view, loop, frames } = this
    views.set(this.node, { playhead, active, view, loop, frames })
  }

  restore() {
    this.ran = waveforms.get(this.node)
    const view = views.get(this.node)
    if (view && this.names.includes(view.active)) Object.assign(this, view)
    this.onChange()
  }
}
