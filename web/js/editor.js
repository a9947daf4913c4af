// The keyframe editor: a timeline with a lane for each channel, and a gizmo that sets the values at the playhead. It
// edits the node's ordinary text input. state.js holds the data, timeline.js and ruler.js draw it, pointer.js,
// gestures.js, keyboard.js and commands.js handle input, elements.js builds the toolbar, sound.js plays.

import { app } from "../../../scripts/app.js"
import { onContextMenu } from "./commands.js"
import { buildElements, setIcon } from "./elements.js"
import { onClipboard, onKeyDown } from "./keyboard.js"
import { EASINGS, FPS, span, tidy } from "./keyframes.js"
import { onDoubleClick, onPointerDown, onPointerMove, onPointerUp, onWheel } from "./pointer.js"
import { RULER } from "./ruler.js"
import { Sound } from "./sound.js"
import { State } from "./state.js"
import { text } from "./texts.js"
import { Timeline } from "./timeline.js"
import { revealing, showing } from "./view.js"

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

/**
 * Subclasses: `drawGizmo(context, colours, layout)`, `grabGizmo(layout, point)`, `gizmoCursor(layout, point)`, and
 * `ownItems(item)` for more in the menu, see commands.js.
 */
export class KeyframeEditor extends Timeline {
  static laneHeight = 34 // pixels, at least
  static State = State

  constructor(node, spec) {
    const elements = buildElements(spec, {
      play: () => this.setPlaying(!this.playing),
      frames: () => this.toggleFrames(),
      add: () => this.state.setValue(this.state.active),
      remove: () => this.state.remove(true),
      easing: () => this.nextEasing(),
      all: () => this.showAll(),
    })
    super(node, elements.root, elements.canvas)
    this.elements = elements
    this.playing = 0 // the pending animation frame while it plays, or 0
    this.muted = false
    this.gesture = null // the drag in progress, see pointer.js
    this.closeMenu = null
    this.state = new this.constructor.State(node, spec, () => this.redraw())
    this.sound = new Sound(() => {
      this.state.heard = this.sound.waveform
      this.redraw()
    })
    this.hideSource()
    this.addEditor()
    this.listenToPage()
    this.listenToNode()
    this.redraw()
  }

  hideSource() {
    const { source } = this.state.inputs
    source.hidden = true
    source.computeSize = () => [0, -4] // leaves no gap either
    // The experimental Vue nodes of frontend 1.27 show no DOM widgets: keep the text visible for editing there.
    const { options = {} } = source
    source.options = Object.assign(options, { hidden: !window.__COMFYUI_FRONTEND_VERSION__?.startsWith("1.27.") })
  }

  addEditor() {
    const { node } = this
    const widget = this.addWidget("editor", "IMTALKER_KEYFRAMES", 0)
    // a link to the text ends where the editor begins, and not at another input
    Object.defineProperty(this.state.inputs.source, "y", { get: () => this.top(widget), set() {} })
    this.passToGraph(this.root, this.elements.help)
    node.setSize([Math.max(node.size[0], MIN_WIDTH), node.size[1]])
    this.fitLanes()
  }

  /** Makes room for every lane. */
  fitLanes() {
    this.setMinHeight(TOOLBAR + RULER + this.state.names.length * this.constructor.laneHeight)
  }

  /** Where the editor begins, in pixels below the node's title. */
  top(widget) {
    const place = this.root.closest("[data-node-id]")
    if (!place) return widget.y
    let y = -window.LiteGraph.NODE_TITLE_HEIGHT
    for (let element = this.root; element && element !== place; element = element.offsetParent) y += element.offsetTop
    return y
  }

  listenToPage() {
    const { canvas, root, state } = this
    const { number, preset, length, amount } = this.elements
    this.on(canvas, "pointerdown", (event) => onPointerDown(this, event))
    this.on(canvas, "pointermove", (event) => onPointerMove(this, event))
    this.on(canvas, "pointerup pointercancel lostpointercapture", (event) => onPointerUp(this, event))
    this.on(canvas, "dblclick", (event) => onDoubleClick(this, event))
    this.on(canvas, "keydown", (event) => onKeyDown(this, event))
    this.on(canvas, "copy cut paste", (event) => onClipboard(this, event))
    this.on(canvas, "focus blur pointerenter", () => this.redraw())
    // keep ComfyUI from dragging the node or running its own shortcuts
    this.on(canvas, "contextmenu", (event) => onContextMenu(this, event))
    this.on(root, "pointerdown dblclick contextmenu", (event) => event.stopPropagation())
    this.on(root, "keydown copy cut paste", (event) => event.target !== canvas && event.stopPropagation())
    this.on(this.elements.help, "keydown", (event) => {
      if (event.key !== "Escape") return
      this.elements.help.hidden = true
      canvas.focus({ preventScroll: true })
    })
    this.on(number, "change", () => {
      const value = Number.parseFloat(number.value)
      if (Number.isFinite(value)) state.setValue(state.active, value)
      this.showValue() // replaces what is out of range or not a number
      this.redraw()
    })
    this.on(preset, "change", () => this.applyPreset(preset.value))
    this.on(amount, "input", () => this.applyPreset())
    this.on(length, "change", () => this.applyPreset())
    this.whenAdded(() => {
      // before the page gives it to the graph
      const onOurs = (event) => {
        if (event.target !== canvas || !onWheel(this, event)) return
        event.preventDefault()
        event.stopImmediatePropagation()
      }
      this.on(window, "wheel", onOurs, { passive: false, capture: true })
      // any of these may have zoomed the graph
      this.on(window, "wheel keyup pointerup", () => this.redrawIfStale(), { passive: true, capture: true })
    })
  }

  listenToNode() {
    const { node, state } = this
    const shown = ["seconds", "allow_more"].map((name) => state.inputs.widget(name))
    for (const widget of shown) this.after(widget, "callback", () => this.redraw())
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
    this.closeMenu?.()
    this.sound.use(null)
    cancelAnimationFrame(this.playing)
  }

  // Actions of toolbar, keys and menu

  ownItems() {
    return []
  }

  toggleFrames() {
    this.state.frames = !this.state.frames
    this.redraw()
  }

  toggleSound() {
    this.muted = !this.muted
    if (this.muted) this.sound.stop()
    else if (this.playing) this.sound.play(this.state.playhead)
  }

  nextEasing() {
    const { state } = this
    if (state.canEdit()) state.setEasing(EASINGS[(EASINGS.indexOf(state.easing()) + 1) % EASINGS.length])
  }

  showAll() {
    this.state.view = null
    this.redraw()
  }

  showSelection() {
    const { state } = this
    if (state.selected.size) state.view = showing(...span(state.selected), state.shownSeconds())
    this.redraw()
  }

  /** Without a name: the last preset again, with another length or size. */
  applyPreset(name) {
    const { length, amount } = this.elements
    const { presets, preset } = this.state
    const own = presets[name ?? preset?.name]?.length
    const seconds = Number(length.value) > 0 ? Number(length.value) : own
    const start = name ? this.state.playhead : undefined
    this.state.applyPreset({ amount: Number(amount.value), seconds, name, start })
    this.redraw()
  }

  /** Plays in real time from the playhead, in the loop or from the start again after the end. */
  setPlaying(playing) {
    if (Boolean(this.playing) === playing) return
    const { state, sound } = this
    setIcon(this.elements.play, playing ? "pause" : "play")
    let before = null
    const step = (now) => {
      if (!this.canvas.clientWidth) return this.setPlaying(false) // collapsed, or another graph is shown
      this.playing = requestAnimationFrame(step)
      const passed = before === null ? 0 : (now - before) / 1000
      before = now
      const [first, last] = state.loop ?? [0, state.duration()]
      const heard = this.muted ? null : sound.time(state.playhead)
      state.playhead = heard ?? state.playhead + passed
      if (state.playhead > last) {
        state.playhead = first
        if (!this.muted) sound.seek(first)
      }
      state.view = revealing(state.view, state.shownSeconds(), state.playhead)
      this.drawNow()
    }
    cancelAnimationFrame(this.playing)
    this.playing = playing ? requestAnimationFrame(step) : 0
    if (playing && state.loop && (state.playhead < state.loop[0] || state.playhead >= state.loop[1])) {
      state.playhead = state.loop[0]
    }
    if (playing && !this.muted) sound.play(state.playhead)
    if (playing) return
    sound.stop()
    state.setPlayhead(state.playhead)
  }

  isStale() {
    const { state, sound } = this
    if (super.isStale() || state.inputs.text() !== state.text || state.inputs.audioFile() !== sound.file) return true
    return state.drag === null && this.drawn !== `${state.shownSeconds()} ${state.allowsMore()} ${state.isForeign()}`
  }

  update() {
    this.state.sync()
    this.sound.use(this.state.inputs.audioFile())
    this.state.heard = this.sound.waveform
    this.state.limit()
  }

  draw(context, colours) {
    this.drawn = `${this.state.shownSeconds()} ${this.state.allowsMore()} ${this.state.isForeign()}`
    if (this.state.error) {
      this.drawMessage(context, colours, `${text(this.state.error)} ${text("Click the bin to clear them.")}`, 30)
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
    const { active, channels, playhead, preset: last, presets } = this.state
    const { time, easing, name, number, preset, length } = this.elements
    const channel = channels[active]
    time.textContent = `${playhead.toFixed(2)} s · ${Math.round(playhead * FPS)}`
    name.textContent = `${text(channel.label)} ${channel.unit}`
    name.title = `${text("Larger values")}: ${text(channel.positive)}`
    setIcon(easing, this.state.easing())
    for (const control of [number, preset, length]) control.disabled = this.state.isForeign()
    length.placeholder = presets[last?.name]?.length ?? text("s")
    number.step = channel.step
    if (document.activeElement !== number) this.showValue()
    preset.value = last?.name ?? ""
  }

  showValue() {
    const { active, channels } = this.state
    this.elements.number.value = tidy(channels[active], this.state.value(active))
  }
}
