// The editor of keyframes over a node's ordinary text input: a timeline with a lane for each channel, and beside it a
// subclass's gizmo, which sets the values under the playhead. The text is the whole state, so a graph runs without us.

import { app } from "../../../scripts/app.js"
import * as k from "./keyframes.js"
import { HELP, ICONS, STYLE } from "./looks.js"
import { GAP, RULER, Timeline } from "./timeline.js"

const GRAB = 9 // pixels around a keyframe
const DEFAULT_SECONDS = 4
const waveforms = new Map() // of nodes by id, so that an undo, which makes all nodes anew, loses none
const views = new Map() // playhead and active channel, likewise

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
  /** Subclasses: the gizmo's share of the least height, and the hooks drawGizmo and grabGizmo. */
  static laneHeight = 34

  constructor(node, spec) {
    super()
    Object.assign(this, { node, channels: spec.channels, presets: spec.presets, names: Object.keys(spec.channels) })
    Object.assign(this, { curves: {}, selected: new Set(), text: null, error: "", playing: false, gesture: null })
    Object.assign(this, { playhead: 0, active: this.names[0], waveform: null, size: "", frame: 0, used: null })
    this.source = this.find("keyframes")
    this.hideSource()
    this.build()
    const least = 52 + this.leastHeight()
    this.widget = node.addDOMWidget("editor", "IMTALKER_KEYFRAMES", this.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => least,
      onDraw: () => this.notice(),
    })
    this.widget.serialize = false
    this.root.style.minHeight = `${least}px`
    this.listen()
    node.setSize([Math.max(node.size[0], 680), Math.max(node.size[1], node.computeSize()[1])])
    this.redraw()
  }

  hideSource() {
    this.source.hidden = true
    this.source.computeSize = () => [0, -4] // no room either
    // The first Vue nodes, an experiment in 1.27, show no element of any pack: there the text itself is edited.
    const { options = {} } = this.source
    this.source.options = Object.assign(options, { hidden: !window.__COMFYUI_FRONTEND_VERSION__?.startsWith("1.27.") })
  }

  find(name) {
    return this.node.widgets.find((widget) => widget.name === name)
  }

  leastHeight() {
    return RULER + this.names.length * this.constructor.laneHeight
  }

  // The page

  build() {
    if (!document.getElementById("imtalker-editor")) {
      const style = Object.assign(document.createElement("style"), { id: "imtalker-editor", textContent: STYLE })
      document.head.append(style)
    }
    const make = (kind, properties = {}, ...children) => {
      const element = Object.assign(document.createElement(kind), properties)
      element.append(...children)
      return element
    }
    const button = (icon, title, act) => {
      const element = make("button", { type: "button", title })
      element.innerHTML = `<svg width="14" height="14" viewBox="0 0 14 14" fill="currentColor">${ICONS[icon]}</svg>`
      element.addEventListener("click", () => (act(), this.canvas.focus()))
      return element
    }
    this.canvas = make("canvas", { tabIndex: 0 })
    this.canvas.setAttribute("role", "application")
    this.canvas.setAttribute("aria-label", `Keyframes of ${this.names.map((n) => this.channels[n].label).join(", ")}`)
    this.play = button("play", "Play (Space)", () => this.setPlaying(!this.playing))
    this.time = make("span", { className: "time" })
    this.name = make("span", { className: "name" })
    this.number = make("input", { type: "number", title: "Value of the channel at the playhead" })
    this.preset = make("select", { title: "Draws a movement over the whole time" }, new Option("Preset…", ""))
    for (const [name, { label }] of Object.entries(this.presets)) this.preset.append(new Option(label, name))
    this.amount = make("input", { type: "range", min: 0.1, max: 2, step: 0.05, value: 1 })
    this.amount.title = "How large the movement of the preset is"
    this.sheet = make("div", { className: "sheet", hidden: true })
    const rows = HELP.flatMap(([key, text]) => [make("dt", { textContent: key }), make("dd", { textContent: text })])
    this.sheet.append(make("dl", {}, ...rows))
    const bar = make(
      "div",
      { className: "bar" },
      this.play,
      this.time,
      make("span", { className: "grow" }),
      this.name,
      this.number,
      button("add", "Keyframe of this channel at the playhead (Enter)", () => this.setValue(this.active)),
      button("remove", "Remove the selected keyframes; none selected: all of this channel", () => this.remove(true)),
      this.preset,
      this.amount,
      button("help", "Mouse and keys", () => (this.sheet.hidden = !this.sheet.hidden)),
    )
    this.root = make("div", { className: "imtalker-editor" }, bar, this.canvas, this.sheet)
  }

  listen() {
    const stop = new AbortController()
    const on = (target, kinds, act, options = {}) => {
      for (const kind of kinds.split(" ")) target.addEventListener(kind, act, { signal: stop.signal, ...options })
    }
    on(this.canvas, "pointerdown", (event) => this.grab(event))
    on(this.canvas, "pointermove", (event) => this.move(event))
    on(this.canvas, "pointerup pointercancel", (event) => this.release(event))
    on(this.canvas, "dblclick", (event) => this.addAt(this.place(event)))
    on(this.canvas, "keydown", (event) => this.key(event))
    on(this.canvas, "copy cut paste", (event) => this.clipboard(event))
    on(this.canvas, "focus blur pointerenter", () => this.redraw())
    // the node must not be dragged, nor the graph's keys act, while someone works in here
    on(this.root, "pointerdown dblclick contextmenu", (event) => event.stopPropagation())
    on(this.root, "keydown copy cut paste", (event) => event.target !== this.canvas && event.stopPropagation())
    on(this.root, "transitionend", () => this.redraw()) // the theme's colours have changed
    on(this.number, "change", () => {
      const value = Number.parseFloat(this.number.value)
      if (Number.isFinite(value)) this.setValue(this.active, value)
      this.redraw()
    })
    on(this.preset, "change", () => this.applyPreset())
    on(this.amount, "change", () => this.used && this.applyPreset())
    on(window, "wheel keyup pointerup", () => this.notice(), { passive: true }) // the zoom may have changed
    const resized = new ResizeObserver(() => this.redraw())
    resized.observe(this.canvas)

    const { node } = this
    const after = (owner, name, act) => {
      const before = owner[name]
      owner[name] = function (...values) {
        const result = before?.apply(this, values)
        act(...values)
        return result
      }
    }
    for (const name of ["seconds", "allow_more"]) after(this.find(name), "callback", () => this.redraw())
    after(node, "onConfigure", () => this.restore())
    after(node, "onExecuted", (output) => {
      const found = output?.imtalker_waveform?.[0]
      if (found) waveforms.set(String(node.id), found)
      this.restore()
    })
    after(node, "onConnectionsChange", () => this.redraw())
    after(node, "onRemoved", () => {
      stop.abort()
      resized.disconnect()
      cancelAnimationFrame(this.frame)
      this.setPlaying(false)
    })
  }

  restore() {
    const id = String(this.node.id)
    this.waveform = waveforms.get(id) ?? null
    const view = views.get(id)
    if (view && this.names.includes(view.active)) Object.assign(this, view)
    this.redraw()
  }

  // The text

  /** Takes over what someone else wrote into the input: a graph loaded, an undo, a script. */
  sync() {
    if (this.gesture || this.source.value === this.text) return
    this.text = this.source.value
    this.selected = new Set()
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
    this.redraw()
    if (text === this.source.value) return
    app.canvas?.emitBeforeChange?.()
    this.text = text
    this.source.value = text
    this.source.callback?.(text)
    app.canvas?.emitAfterChange?.()
    this.node.setDirtyCanvas?.(true, true)
  }

  change(curves, selected = new Set(), keepPreset = false) {
    if (!keepPreset) this.used = null
    Object.assign(this, { curves, selected })
    this.commit()
  }

  /** Whether there is anything to edit; a text that cannot be read is left as it is until it is cleared. */
  usable() {
    this.sync()
    return !this.error
  }

  more() {
    return Boolean(this.find("allow_more")?.value)
  }

  // Time and values

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

  /** Seconds that the timeline shows; they stay while a hand is on it. */
  shown() {
    return this.gesture?.shown ?? Math.max(this.duration(), k.lastTime(this.curves))
  }

  value(name, time = this.playhead) {
    const curve = this.curves[name]
    if (!curve?.length) return this.channels[name].rest
    return k.clamp(k.valueAt(curve, time), ...k.range(this.channels[name], this.more()))
  }

  withValue(curves, name, value) {
    const channel = this.channels[name]
    const inside = k.tidy(channel, k.clamp(value, ...k.range(channel, this.more())))
    return k.withKeyframe(curves, name, k.snap(this.playhead), inside)
  }

  /** A keyframe at the playhead. */
  setValue(name, value = this.value(name)) {
    if (!this.usable()) return
    const curves = this.withValue(this.curves, name, value)
    const at = k.snap(this.playhead)
    this.change(curves, new Set(curves[name].filter(([time]) => time === at)))
  }

  setPlayhead(time) {
    this.playhead = k.clamp(k.snap(time), 0, this.shown())
    this.redraw()
  }

  remove(all = false) {
    this.sync()
    if (this.error) return this.change({}, new Set(), (this.error = ""))
    const selected = this.selected.size || !all ? this.selected : new Set(this.curves[this.active])
    if (selected.size) this.change(k.without(this.curves, selected))
  }

  applyPreset() {
    const name = this.preset.value || this.used?.name
    this.preset.value = ""
    if (!name || !this.usable()) return
    const seconds = this.duration()
    const made = k.expand(this.presets[name], seconds, Number(this.amount.value), this.channels)
    this.used = { name }
    this.change({ ...this.curves, ...k.limited(made, this.channels, this.more()) }, new Set(), true)
  }

  setPlaying(playing) {
    if (this.playing === playing) return
    this.playing = playing
    this.play.firstElementChild.innerHTML = ICONS[playing ? "pause" : "play"]
    let before = null
    const step = (now) => {
      if (!this.playing) return
      this.playhead += before === null ? 0 : (now - before) / 1000
      if (this.playhead > this.duration()) this.playhead = 0
      before = now
      this.draw()
      requestAnimationFrame(step)
    }
    if (playing) requestAnimationFrame(step)
    else this.setPlayhead(this.playhead)
  }

  // Mouse, pen and finger

  /** Where the pointer is, in the canvas's own pixels, whatever the graph's zoom. */
  place(event) {
    const box = this.canvas.getBoundingClientRect()
    const zoom = box.width / this.canvas.clientWidth || 1
    return { x: (event.clientX - box.left) / zoom, y: (event.clientY - box.top) / zoom }
  }

  grab(event) {
    if (event.button !== 0) return
    this.canvas.focus({ preventScroll: true })
    if (!this.usable()) return
    const start = this.place(event)
    const layout = this.layout()
    const gesture = this.gestureAt(layout, start, event)
    if (!gesture) return this.redraw()
    this.setPlaying(false)
    this.canvas.setPointerCapture(event.pointerId)
    this.gesture = { shown: layout.seconds, start, before: this.curves, ...gesture }
    this.gesture.move?.(start, event)
    this.redraw()
  }

  gestureAt(layout, start, event) {
    if (start.x < layout.side + GAP / 2) return this.grabGizmo(layout, start, event)
    const name = this.laneAt(layout, start.y)
    if (name) this.active = name
    if (start.x < layout.left) return null
    if (!name) return { move: (point) => this.setPlayhead(this.timeAt(layout, point.x)) }
    const hit = k.nearest(this.points(layout), start.x, start.y, GRAB)
    return hit ? this.dragKeyframes(layout, start, hit, event) : this.band(layout, start, event)
  }

  dragKeyframes(layout, start, { name, keyframe }, event) {
    this.active = name
    if (event.shiftKey && this.selected.has(keyframe)) this.selected.delete(keyframe)
    else if (event.shiftKey) this.selected.add(keyframe)
    else if (!this.selected.has(keyframe)) this.selected = new Set([keyframe])
    const { curves, selected } = this
    if (!selected.has(keyframe)) return null
    let active = false
    this.playhead = keyframe[0]
    return {
      move: (point, { shiftKey, altKey }) => {
        const dx = point.x - start.x, dy = point.y - start.y
        active ||= Math.hypot(dx, dy) > 3
        if (!active) return
        const slow = shiftKey ? 0.2 : 1
        const time = keyframe[0] + (dx * slow * layout.seconds) / (layout.right - layout.left - 6)
        const target = k.clamp(altKey ? time : k.snap(time), 0, layout.seconds)
        const share = (-dy * slow) / (layout.lane - 12)
        const changes = {}
        for (const other of this.names) {
          const [least, most] = k.range(this.channels[other], this.more())
          changes[other] = share * (most - least)
        }
        const result = k.moved(curves, selected, target - keyframe[0], changes, this.channels, this.more())
        Object.assign(this, result)
        this.playhead = k.clamp(target, 0, layout.seconds)
      },
    }
  }

  band(layout, start, event) {
    const kept = event.shiftKey ? [...this.selected] : []
    let box = null
    return {
      box: () => box,
      move: (point) => {
        if (!box && Math.hypot(point.x - start.x, point.y - start.y) <= 3) return
        box = [Math.min(start.x, point.x), Math.min(start.y, point.y), Math.abs(point.x - start.x), Math.abs(point.y - start.y)]
        const inside = this.points(layout).filter(
          ({ x, y }) => x >= box[0] && x <= box[0] + box[2] && y >= box[1] && y <= box[1] + box[3],
        )
        this.selected = new Set([...kept, ...inside.map(({ keyframe }) => keyframe)])
      },
      end: (point) => {
        if (box) return
        this.selected = new Set(kept)
        this.setPlayhead(this.timeAt(layout, point.x))
      },
    }
  }

  /** A drag of the gizmo: `values(point, event)` gives {channel: value} for the playhead. */
  dragValues(values) {
    const { curves } = this
    const at = k.snap(this.playhead)
    return {
      move: (point, event) => {
        let found = curves
        const chosen = values(point, event)
        for (const [name, value] of Object.entries(chosen)) found = this.withValue(found, name, value)
        this.curves = found
        const names = Object.keys(chosen)
        this.selected = new Set(names.flatMap((name) => found[name].filter(([time]) => time === at)))
        if (names.length && !names.includes(this.active)) this.active = names[0]
      },
    }
  }

  move(event) {
    if (this.gesture) {
      this.gesture.move?.(this.place(event), event)
      this.redraw()
    } else if (!this.error) {
      this.canvas.style.cursor = this.cursorAt(this.place(event))
    }
  }

  cursorAt(point) {
    const layout = this.layout()
    if (point.x < layout.side + GAP / 2) return this.gizmoCursor(layout, point)
    if (point.x < layout.left) return "pointer"
    if (point.y < RULER) return "ew-resize"
    return k.nearest(this.points(layout), point.x, point.y, GRAB) ? "grab" : "crosshair"
  }

  release(event) {
    const { gesture } = this
    if (!gesture) return
    gesture.end?.(this.place(event))
    this.gesture = null
    if (this.curves !== gesture.before) this.change(this.curves, this.selected)
    this.redraw()
  }

  addAt(point) {
    const layout = this.layout()
    const name = this.laneAt(layout, point.y)
    if (point.x < layout.left || !name || !this.usable()) return
    if (k.nearest(this.points(layout), point.x, point.y, GRAB)) return
    this.active = name
    this.setPlayhead(this.timeAt(layout, point.x))
    this.setValue(name, this.valueOf(layout, name, point.y))
  }

  // Keys and clipboard

  key(event) {
    const frames = (event.shiftKey ? 10 : 1) / k.FPS
    const steps = event.shiftKey ? 5 : 1
    const ctrl = event.ctrlKey || event.metaKey
    const acts = ctrl
      ? { a: () => (this.selected = new Set(Object.values(this.curves).flat())) }
      : {
          ArrowLeft: () => this.shift(-frames),
          ArrowRight: () => this.shift(frames),
          ArrowUp: () => this.raise(steps),
          ArrowDown: () => this.raise(-steps),
          "+": () => this.raise(1),
          "=": () => this.raise(1),
          "-": () => this.raise(-1),
          PageUp: () => this.step(-1),
          PageDown: () => this.step(1),
          Home: () => ((this.selected = new Set()), this.setPlayhead(0)),
          End: () => ((this.selected = new Set()), this.setPlayhead(this.duration())),
          Delete: () => this.remove(),
          Backspace: () => this.remove(),
          Enter: () => this.setValue(this.active),
          Escape: () => ((this.selected = new Set()), (this.sheet.hidden = true)),
          " ": () => this.setPlaying(!this.playing),
        }
    const act = acts[ctrl ? event.key.toLowerCase() : event.key]
    if (!act || event.altKey) {
      // ComfyUI's own keys pass, but for copy and paste, which come as events of their own
      if (ctrl && ["c", "x", "v"].includes(event.key.toLowerCase())) event.stopPropagation()
      return
    }
    event.preventDefault()
    event.stopPropagation()
    if (this.gesture || !this.usable()) return
    act()
    this.redraw()
  }

  shift(seconds) {
    if (!this.selected.size) return this.setPlayhead(this.playhead + seconds)
    const { curves, selected } = k.moved(this.curves, this.selected, seconds, {}, this.channels, this.more())
    this.playhead = Math.min(...[...selected].map(([time]) => time))
    this.change(curves, selected)
  }

  raise(steps) {
    const by = steps * this.channels[this.active].step
    if (!this.selected.size) return this.setValue(this.active, this.value(this.active) + by)
    const changes = Object.fromEntries(this.names.map((name) => [name, steps * this.channels[name].step]))
    const { curves, selected } = k.moved(this.curves, this.selected, 0, changes, this.channels, this.more())
    this.change(curves, selected)
  }

  step(by) {
    this.active = this.names[k.clamp(this.names.indexOf(this.active) + by, 0, this.names.length - 1)]
    this.selected = new Set()
  }

  clipboard(event) {
    event.preventDefault()
    event.stopPropagation()
    if (!this.usable()) return
    if (event.type === "paste") {
      try {
        const part = k.parse(event.clipboardData.getData("text/plain"), this.names)
        const inside = k.limited(part, this.channels, this.more())
        const { curves, selected } = k.pasted(this.curves, inside, k.snap(this.playhead))
        if (selected.size) this.change(curves, selected)
      } catch {
        return // something else was copied
      }
    } else if (this.selected.size) {
      event.clipboardData.setData("text/plain", k.clip(this.curves, this.selected))
      if (event.type === "cut") this.remove()
    }
  }

  // Drawing

  /** Draws again where the input or the zoom has changed behind our back. */
  notice() {
    if (this.source.value !== this.text || zoom() !== this.zoom) this.redraw()
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0
      this.draw()
    })
  }

  draw() {
    this.sync()
    const { canvas } = this
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
    if (this.error) {
      this.drawError(context, colours)
    } else {
      const layout = this.layout()
      views.set(String(this.node.id), { playhead: this.playhead, active: this.active })
      context.save()
      this.drawGizmo(context, colours, layout)
      context.restore()
      this.drawTimeline(context, colours, layout)
    }
    this.describe()
  }

  describe() {
    const channel = this.channels[this.active]
    this.time.textContent = `${this.playhead.toFixed(2)} s`
    this.name.textContent = `${channel.label} ${channel.unit}`
    this.name.title = `${channel.label}: larger is ${channel.positive}`
    this.number.step = channel.step
    if (document.activeElement !== this.number) this.number.value = k.tidy(channel, this.value(this.active))
    if (!this.used) this.preset.value = ""
    else this.preset.value = this.used.name
  }
}
