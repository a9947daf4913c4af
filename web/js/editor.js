// The keyframe editor: a timeline with a lane for each channel, and a gizmo that sets the values at the playhead. It
// edits the node's ordinary text input. state.js holds the data, timeline.js draws it, pointer.js and keyboard.js
// handle input, elements.js builds the toolbar.

import { app } from "../../../scripts/app.js"
import { buildElements, ICONS } from "./elements.js"
import { onClipboard, onKeyDown } from "./keyboard.js"
import { tidy } from "./keyframes.js"
import { onDoubleClick, onPointerDown, onPointerMove, onPointerUp } from "./pointer.js"
import { State } from "./state.js"
import { RULER, Timeline } from "./timeline.js"

const TOOLBAR = 52 // pixels, with the paddings
const MIN_WIDTH = 680

/** Gives every node of this class an editor; the channels and presets come with the definition of its input. */
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

/** Subclasses: `drawGizmo(context, colours, layout)`, `grabGizmo(layout, point)`, `gizmoCursor(layout, point)`. */
export class KeyframeEditor extends Timeline {
  static laneHeight = 34 // pixels, at least

  constructor(node, spec) {
    const elements = buildElements(spec, {
      play: () => this.setPlaying(!this.playing),
      add: () => this.state.setValue(this.state.active),
      remove: () => this.state.remove(true),
    })
    super(node, elements.root, elements.canvas)
    this.elements = elements
    this.playing = 0 // the pending animation frame while it plays, or 0
    this.gesture = null // the drag in progress, see pointer.js
    this.state = new State(node, spec, () => this.redraw())
    this.hideSource()
    this.addEditor()
    this.listenToPage()
    this.listenToNode()
    this.redraw()
  }

  hideSource() {
    const { source } = this.state
    source.hidden = true
    source.computeSize = () => [0, -4] // leaves no gap either
    // The experimental Vue nodes of frontend 1.27 show no DOM widgets: keep the text visible for editing there.
    const { options = {} } = source
    source.options = Object.assign(options, { hidden: !window.__COMFYUI_FRONTEND_VERSION__?.startsWith("1.27.") })
  }

  addEditor() {
    const { node } = this
    const height = TOOLBAR + RULER + this.state.names.length * this.constructor.laneHeight
    this.addWidget("editor", "IMTALKER_KEYFRAMES", height)
    this.root.style.minHeight = `${height}px`
    node.setSize([Math.max(node.size[0], MIN_WIDTH), Math.max(node.size[1], node.computeSize()[1])])
  }

  listenToPage() {
    const { canvas, root, state } = this
    const { number, preset, amount } = this.elements
    this.on(canvas, "pointerdown", (event) => onPointerDown(this, event))
    this.on(canvas, "pointermove", (event) => onPointerMove(this, event))
    this.on(canvas, "pointerup pointercancel lostpointercapture", (event) => onPointerUp(this, event))
    this.on(canvas, "dblclick", (event) => onDoubleClick(this, event))
    this.on(canvas, "keydown", (event) => onKeyDown(this, event))
    this.on(canvas, "copy cut paste", (event) => onClipboard(this, event))
    this.on(canvas, "focus blur pointerenter", () => this.redraw())
    // keep ComfyUI from dragging the node or running its own shortcuts
    this.on(root, "pointerdown dblclick contextmenu", (event) => event.stopPropagation())
    this.on(root, "keydown copy cut paste", (event) => event.target !== canvas && event.stopPropagation())
    this.on(number, "change", () => {
      const value = Number.parseFloat(number.value)
      if (Number.isFinite(value)) state.setValue(state.active, value)
      this.showValue() // replaces what is out of range or not a number
      this.redraw()
    })
    const applyPreset = (name) => {
      state.applyPreset(Number(amount.value), name)
      this.redraw()
    }
    this.on(preset, "change", () => applyPreset(preset.value))
    this.on(amount, "change", () => applyPreset())
    // any of these may have zoomed the graph
    this.on(window, "wheel keyup pointerup", () => this.redrawIfStale(), { passive: true })
  }

  listenToNode() {
    const { node, state } = this
    for (const name of ["seconds", "allow_more"]) this.after(state.widget(name), "callback", () => this.redraw())
    this.after(node, "onConfigure", () => state.restore())
    this.after(node, "onExecuted", (output) => {
      const waveform = output?.imtalker_waveform?.[0]
      if (waveform) state.saveWaveform(waveform)
      state.restore()
    })
    this.after(node, "onConnectionsChange", () => this.redraw())
  }

  destroy() {
    super.destroy()
    cancelAnimationFrame(this.playing)
  }

  /** Plays in real time from the playhead, and from the start again after the end. */
  setPlaying(playing) {
    if (Boolean(this.playing) === playing) return
    const { state } = this
    this.elements.play.firstElementChild.innerHTML = ICONS[playing ? "pause" : "play"]
    let before = null
    const step = (now) => {
      this.playing = requestAnimationFrame(step)
      state.playhead += before === null ? 0 : (now - before) / 1000
      if (state.playhead > state.duration()) state.playhead = 0
      before = now
      this.drawNow()
    }
    cancelAnimationFrame(this.playing)
    this.playing = playing ? requestAnimationFrame(step) : 0
    if (!playing) state.setPlayhead(state.playhead)
  }

  isStale() {
    return super.isStale() || this.state.source.value !== this.state.text
  }

  update() {
    this.state.sync()
    this.state.limitPlayhead()
  }

  draw(context, colours) {
    if (this.state.error) {
      this.drawError(context, colours)
    } else {
      const layout = this.layout()
      this.state.saveView()
      context.save()
      this.drawGizmo(context, colours, layout)
      context.restore()
      this.drawTimeline(context, colours, layout)
    }
    this.updateToolbar()
  }

  updateToolbar() {
    const { active, channels, playhead, lastPreset } = this.state
    const { time, name, number, preset } = this.elements
    const channel = channels[active]
    time.textContent = `${playhead.toFixed(2)} s`
    name.textContent = `${channel.label} ${channel.unit}`
    name.title = `Larger values: ${channel.positive}`
    number.step = channel.step
    if (document.activeElement !== number) this.showValue()
    preset.value = lastPreset ?? ""
  }

  showValue() {
    const { active, channels } = this.state
    this.elements.number.value = tidy(channels[active], this.state.value(active))
  }
}
