// The editor of keyframes over a node's ordinary text input: a timeline with a lane for each channel, and beside it a
// subclass's gizmo, which sets the values under the playhead. state.js is what it holds, timeline.js what it shows of
// it, pointer.js and keyboard.js what hands do to it.

import { app } from "../../../scripts/app.js"
import { clipboard, key } from "./keyboard.js"
import * as k from "./keyframes.js"
import { build, ICONS } from "./looks.js"
import { add, grab, move, release } from "./pointer.js"
import { State } from "./state.js"
import { RULER, Timeline } from "./timeline.js"

/** Of the graph, which scales our canvas as well: it is drawn with as many pixels as are seen. */
const zoom = () => app.canvas?.ds?.scale ?? 1

/** Gives every node of this class an editor. */
export function install(comfyClass, Editor) {
  let spec = null
  app.registerExtension({
    name: `IMTalker.${comfyClass}`,
    beforeRegisterNodeDef(nodeType, nodeData) {
      if (nodeData.name === comfyClass) spec = nodeData.input.required.keyframes[1].imtalker
    },
    nodeCreated(node) {
      if (node.comfyClass === comfyClass && spec) new Editor(node, spec)
    },
  })
}

export class KeyframeEditor extends Timeline {
  /** Subclasses: the least height of a lane, and the hooks drawGizmo, grabGizmo (a gesture) and gizmoCursor. */
  static laneHeight = 34

  constructor(node, spec) {
    super()
    Object.assign(this, { node, playing: 0, gesture: null, size: "", frame: 0 })
    this.state = new State(node, spec, () => this.redraw())
    this.parts = build(spec, {
      play: () => this.setPlaying(!this.playing),
      add: () => this.state.setValue(this.state.active),
      remove: () => this.state.remove(true),
    })
    Object.assign(this, { root: this.parts.root, canvas: this.parts.canvas })
    this.hideSource()
    this.addWidget()
    this.listen()
    this.redraw()
  }

  hideSource() {
    const { source } = this.state
    source.hidden = true
    source.computeSize = () => [0, -4] // no room either
    // The first Vue nodes, an experiment in 1.27, show no element of any pack: there the text itself is edited.
    const { options = {} } = source
    source.options = Object.assign(options, { hidden: !window.__COMFYUI_FRONTEND_VERSION__?.startsWith("1.27.") })
  }

  addWidget() {
    const { node } = this
    const least = 52 + RULER + this.state.names.length * this.constructor.laneHeight
    const widget = node.addDOMWidget("editor", "IMTALKER_KEYFRAMES", this.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => least,
      onDraw: () => this.notice(),
    })
    widget.serialize = false
    this.root.style.minHeight = `${least}px`
    node.setSize([Math.max(node.size[0], 680), Math.max(node.size[1], node.computeSize()[1])])
  }

  // What happens

  listen() {
    const stop = new AbortController()
    const on = (target, kinds, act, options = {}) => {
      for (const kind of kinds.split(" ")) target.addEventListener(kind, act, { signal: stop.signal, ...options })
    }
    const { canvas, root, state } = this
    const { number, preset, amount } = this.parts
    on(canvas, "pointerdown", (event) => grab(this, event))
    on(canvas, "pointermove", (event) => move(this, event))
    on(canvas, "pointerup pointercancel lostpointercapture", (event) => release(this, event))
    on(canvas, "dblclick", (event) => add(this, event))
    on(canvas, "keydown", (event) => key(this, event))
    on(canvas, "copy cut paste", (event) => clipboard(this, event))
    on(canvas, "focus blur pointerenter", () => this.redraw())
    // the node must not be dragged, nor the graph's keys act, while someone works in here
    on(root, "pointerdown dblclick contextmenu", (event) => event.stopPropagation())
    on(root, "keydown copy cut paste", (event) => event.target !== canvas && event.stopPropagation())
    on(root, "transitionend", () => this.redraw()) // the theme's colours have changed
    on(number, "change", () => {
      const value = Number.parseFloat(number.value)
      if (Number.isFinite(value)) state.setValue(state.active, value)
      this.showValue() // what was typed may have been out of its limits, or no number
      this.redraw()
    })
    const applyPreset = (name) => {
      state.applyPreset(Number(amount.value), name)
      this.redraw()
    }
    on(preset, "change", () => applyPreset(preset.value))
    on(amount, "change", () => applyPreset())
    on(window, "wheel keyup pointerup", () => this.notice(), { passive: true }) // the zoom may have changed
    const resized = new ResizeObserver(() => this.redraw())
    resized.observe(canvas)

    const { node } = this
    const after = (owner, name, act) => {
      const before = owner[name]
      owner[name] = function (...values) {
        const result = before?.apply(this, values)
        act(...values)
        return result
      }
    }
    for (const name of ["seconds", "allow_more"]) after(state.find(name), "callback", () => this.redraw())
    after(node, "onConfigure", () => state.restore())
    after(node, "onExecuted", (output) => {
      const found = output?.imtalker_waveform?.[0]
      if (found) state.keepWaveform(found)
      state.restore()
    })
    after(node, "onConnectionsChange", () => this.redraw())
    after(node, "onRemoved", () => {
      stop.abort()
      resized.disconnect()
      this.setPlaying(false)
      cancelAnimationFrame(this.frame)
    })
  }

  /** From the playhead on in real time, and at the end from the start again; `playing` is the frame asked for, or 0. */
  setPlaying(playing) {
    if (Boolean(this.playing) === playing) return
    const { state } = this
    this.parts.play.firstElementChild.innerHTML = ICONS[playing ? "pause" : "play"]
    let before = null
    const step = (now) => {
      this.playing = requestAnimationFrame(step)
      state.playhead += before === null ? 0 : (now - before) / 1000
      if (state.playhead > state.duration()) state.playhead = 0
      before = now
      this.draw()
    }
    cancelAnimationFrame(this.playing)
    this.playing = playing ? requestAnimationFrame(step) : 0
    if (!playing) state.setPlayhead(state.playhead)
  }

  // Drawing

  /** Draws again where the input or the zoom has changed behind our back. */
  notice() {
    if (this.state.source.value !== this.state.text || zoom() !== this.zoom) this.redraw()
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0
      this.draw()
    })
  }

  draw() {
    const { canvas, state } = this
    state.sync()
    state.keepPlayhead()
    const width = canvas.clientWidth, height = canvas.clientHeight
    if (!width || !height) return
    this.zoom = zoom()
    const scale = devicePixelRatio * k.clamp(this.zoom, 1, 4)
    const size = `${Math.round(width * scale)} ${Math.round(height * scale)}`
    if (size !== this.size) [canvas.width, canvas.height] = (this.size = size).split(" ")
    const context = canvas.getContext("2d")
    context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0)
    context.clearRect(0, 0, width, height)
    const colours = this.colours()
    context.font = `11px ${colours.font}`
    if (state.error) {
      this.drawError(context, colours)
    } else {
      const layout = this.layout()
      state.keepView()
      context.save()
      this.drawGizmo(context, colours, layout)
      context.restore()
      this.drawTimeline(context, colours, layout)
    }
    this.describe()
  }

  describe() {
    const { active, channels, playhead, used } = this.state
    const { time, name, number, preset } = this.parts
    const channel = channels[active]
    time.textContent = `${playhead.toFixed(2)} s`
    name.textContent = `${channel.label} ${channel.unit}`
    name.title = `${channel.label}: larger is ${channel.positive}`
    number.step = channel.step
    if (document.activeElement !== number) this.showValue()
    preset.value = used ?? ""
  }

  showValue() {
    const { active, channels } = this.state
    this.parts.number.value = k.tidy(channels[active], this.state.value(active))
  }
}
