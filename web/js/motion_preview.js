// The strongest movements of the motion that Edit Motion or Join Motion gave last, as curves in the node.

import { app } from "../../../scripts/app.js"
import { Memory } from "./memory.js"

const KINDS = ["IMTalkerEditMotion", "IMTalkerJoinMotion"]
const HEIGHT = 84
const BOTTOM = 16 // for the times
const HUES = [210, 145, 30]
const motions = new Memory()

const STYLE = `
.imtalker-motion { width: 100%; height: 100%; min-height: ${HEIGHT}px; box-sizing: border-box; padding: 6px;
  border-radius: 6px; overflow: hidden; font: 11px Inter, Arial, sans-serif; color: var(--descrip-text);
  background-color: var(--comfy-input-bg); border: 1px solid var(--border-color); outline-color: var(--border-color);
  pointer-events: none; transition: color 1ms, background-color 1ms; }
.imtalker-motion canvas { width: 100%; height: 100%; display: block; }
`

class MotionPreview {
  constructor(node) {
    Object.assign(this, { node, motion: null, frame: 0, zoom: 0 })
    if (!document.getElementById("imtalker-motion")) {
      const style = Object.assign(document.createElement("style"), { id: "imtalker-motion", textContent: STYLE })
      document.head.append(style)
    }
    this.canvas = document.createElement("canvas")
    this.canvas.setAttribute("role", "img")
    this.root = Object.assign(document.createElement("div"), { className: "imtalker-motion" })
    this.root.append(this.canvas)
    const widget = node.addDOMWidget("motion_preview", "IMTALKER_MOTION_PREVIEW", this.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => HEIGHT,
      getMaxHeight: () => 2 * HEIGHT,
      onDraw: () => this.notice(),
    })
    widget.serialize = false
    this.listen()
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
    this.show(null)
  }

  listen() {
    const stop = new AbortController()
    this.root.addEventListener("transitionend", () => this.redraw(), { signal: stop.signal }) // the theme has changed
    const resized = new ResizeObserver(() => this.redraw())
    resized.observe(this.canvas)
    const { node } = this
    const after = (name, act) => {
      const before = node[name]
      node[name] = function (...values) {
        const result = before?.apply(this, values)
        act(...values)
        return result
      }
    }
    after("onConfigure", () => this.show(motions.get(node)))
    after("onExecuted", (output) => {
      const found = output?.imtalker_motion?.[0]
      if (!found) return
      motions.set(node, found)
      this.show(found)
    })
    after("onRemoved", () => {
      stop.abort()
      resized.disconnect()
      cancelAnimationFrame(this.frame)
    })
  }

  show(motion) {
    this.motion = motion
    this.text = motion ? `${motion.frames} frames, ${+motion.seconds.toFixed(2)} s` : "A run shows the motion here"
    this.canvas.setAttribute("aria-label", this.text)
    this.redraw()
  }

  /** The graph's zoom scales the canvas as well: it is drawn with as many pixels as are seen. */
  notice() {
    if ((app.canvas?.ds?.scale ?? 1) !== this.zoom) this.redraw()
  }

  redraw() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0
      this.draw()
    })
  }

  draw() {
    const { canvas, motion } = this
    const width = canvas.clientWidth, height = canvas.clientHeight
    if (!width || !height) return
    this.zoom = app.canvas?.ds?.scale ?? 1
    const scale = devicePixelRatio * Math.min(Math.max(this.zoom, 1), 4)
    canvas.width = Math.round(width * scale)
    canvas.height = Math.round(height * scale)
    const pen = canvas.getContext("2d")
    pen.scale(scale, scale)
    const style = getComputedStyle(this.root)
    const [r, g, b] = style.backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0]
    const dark = 0.3 * r + 0.59 * g + 0.11 * b < 140
    const middle = (height - BOTTOM) / 2
    pen.strokeStyle = style.outlineColor
    pen.strokeRect(0, middle, width, 0)
    pen.fillStyle = style.color
    pen.font = style.font
    pen.fillText(this.text, 0, height - 3)
    if (!motion) return
    pen.lineJoin = "round"
    pen.lineWidth = 1.5
    // the strongest lies on top
    for (let number = motion.curves.length - 1; number >= 0; number--) {
      const curve = motion.curves[number]
      const step = width / Math.max(1, curve.length - 1)
      pen.strokeStyle = `hsl(${HUES[number]} ${dark ? "75% 68%" : "80% 32%"})`
      pen.beginPath()
      curve.forEach((value, place) => pen.lineTo(place * step, middle - (value / 100) * (middle - 2)))
      if (curve.length === 1) pen.lineTo(width, middle)
      pen.stroke()
    }
  }
}

app.registerExtension({
  name: "IMTalker.MotionPreview",
  nodeCreated(node) {
    if (KINDS.includes(node.comfyClass)) new MotionPreview(node)
  },
})
