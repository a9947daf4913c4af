// The timeline of a keyframe editor: where everything is on the canvas, and how the lanes and curves are drawn. What is
// about time alone (ruler, loop, playhead) is drawn by ruler.js.

import { NodeCanvas } from "./canvas.js"
import { clamp, easingOf, formatted, slopes, valueAt } from "./keyframes.js"
import { drawLoop, drawNavigator, drawPlayhead, drawRuler, drawSelectionBar, GAP, RULER } from "./ruler.js"
import { text } from "./texts.js"

// in pixels
export const LANE_PADDING = 6 // above and below the range of values
const LABELS = 96 // width
const CURVE_PADDING = 6 // left of time 0
const LINE_HEIGHT = 18 // of a message
const KEYFRAME = 6 // half the size of a selected one
const AXIS_FONT = "9px"

/** Needs a `state` (see state.js) and a `gesture` (see pointer.js). */
export class Timeline extends NodeCanvas {
  /**
   * The gizmo is a square of width `side` at the left; the lanes' curves run from `left` to `right` and show `seconds`
   * from `start` on, of `whole`.
   */
  layout() {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight
    const side = Math.max(60, Math.min(height, width * 0.34))
    const left = side + GAP + LABELS, right = width - 10
    const lane = (height - RULER) / this.state.names.length
    const whole = this.state.shownSeconds()
    const { start, seconds } = this.state.view ?? { start: 0, seconds: whole }
    const secondsPerPixel = seconds / (right - left - CURVE_PADDING)
    return { width, height, side, left, right, lane, start, seconds, whole, secondsPerPixel }
  }

  x(layout, time) {
    return layout.left + CURVE_PADDING + (time - layout.start) / layout.secondsPerPixel
  }

  timeAt(layout, x) {
    return layout.start + (x - layout.left - CURVE_PADDING) * layout.secondsPerPixel
  }

  /** The top of a channel's range of values, its height and its limits. */
  valueRange(layout, name) {
    const [low, high] = this.state.range(name)
    const top = RULER + this.state.names.indexOf(name) * layout.lane + LANE_PADDING
    return { low, high, top, height: layout.lane - 2 * LANE_PADDING }
  }

  y(layout, name, value) {
    const { low, high, top, height } = this.valueRange(layout, name)
    return top + (1 - (clamp(value, low, high) - low) / (high - low)) * height
  }

  valueAtY(layout, name, y) {
    const { low, high, top, height } = this.valueRange(layout, name)
    return high - ((y - top) / height) * (high - low)
  }

  laneAt(layout, y) {
    return y < RULER ? null : (this.state.names[Math.floor((y - RULER) / layout.lane)] ?? null)
  }

  /** Every visible keyframe with its position on the canvas: {x, y, name, keyframe}. */
  points(layout) {
    return Object.entries(this.state.curves).flatMap(([name, curve]) =>
      this.visible(layout, curve).map((keyframe) => {
        const [time, value] = keyframe
        return { x: this.x(layout, time), y: this.y(layout, name, value), name, keyframe }
      }),
    )
  }

  visible(layout, curve) {
    const margin = KEYFRAME * layout.secondsPerPixel
    const first = layout.start - margin, last = layout.start + layout.seconds + margin
    return curve.filter(([time]) => time >= first && time <= last)
  }

  colours() {
    const colours = super.colours()
    return { ...colours, channel: (name) => colours.curve(this.state.names.indexOf(name)) }
  }

  drawMessage(context, colours, message, top, right = this.canvas.clientWidth) {
    context.fillStyle = colours.text
    let line = "", y = top
    // Chinese has no spaces to break at
    for (const word of message.match(/[\u3000-\u9fff\uff00-\uffef]|[^\s\u3000-\u9fff\uff00-\uffef]+\s*|\s+/g) ?? []) {
      if (context.measureText(line + word).width > right - 24) {
        context.fillText(line, 12, y)
        ;[line, y] = ["", y + LINE_HEIGHT]
      }
      line += word
    }
    context.fillText(line, 12, y)
  }

  drawTimeline(context, colours, layout) {
    const { left, height, width } = layout
    this.state.names.forEach((name, index) => this.drawLane(context, colours, layout, name, index))
    this.drawWaveform(context, colours, layout)
    drawRuler(this, context, colours, layout)
    drawLoop(this, context, colours, layout)
    context.save()
    context.beginPath()
    context.rect(left, RULER, width - left, height - RULER)
    context.clip()
    for (const name of this.state.names) this.drawCurve(context, colours, layout, name)
    this.dimAfterEnd(context, colours, layout)
    context.restore()
    this.drawSelectionBox(context, colours)
    drawSelectionBar(this, context, colours, layout)
    drawPlayhead(this, context, colours, layout)
    drawNavigator(this, context, colours, layout)
    if (this.state.isForeign()) this.drawNote(context, colours, layout)
  }

  /** Says why nothing can be changed. */
  drawNote(context, colours, layout) {
    const note = text("Linked: the keyframes come from elsewhere. Remove the link to draw here.")
    context.font = `12px ${colours.font}`
    context.textAlign = "left"
    context.textBaseline = "middle"
    const width = context.measureText(note).width + 20
    const x = Math.max(4, layout.width - width - 4), y = layout.height / 2
    context.fillStyle = colours.back
    context.strokeStyle = colours.text
    context.beginPath()
    context.roundRect(x, y - 13, width, 26, 6)
    context.fill()
    context.stroke()
    context.fillStyle = colours.text
    context.fillText(note, x + 10, y)
  }

  drawLane(context, colours, layout, name, index) {
    const { left, width, side, lane } = layout
    const channel = this.state.channels[name]
    const active = name === this.state.active
    const hasKeyframes = this.state.curves[name]?.length
    const top = RULER + index * lane, middle = top + lane / 2
    context.fillStyle = colours.text
    context.globalAlpha = active ? 0.1 : index % 2 ? 0 : 0.03
    context.fillRect(side + GAP, top, width - side - GAP, lane)
    context.globalAlpha = 0.16
    context.fillRect(left, Math.round(this.y(layout, name, channel.rest)), width - left, 1)
    if (active) {
      context.fillStyle = colours.channel(name)
      context.globalAlpha = document.activeElement === this.canvas ? 1 : 0.5
      context.fillRect(side + GAP, top, 3, lane)
    }
    context.textBaseline = "middle"
    context.textAlign = "left"
    context.fillStyle = hasKeyframes ? colours.channel(name) : colours.text
    context.globalAlpha = hasKeyframes || active ? 1 : 0.6
    context.fillText(text(channel.label), side + GAP + 9, middle)
    context.textAlign = "right"
    context.fillStyle = colours.text
    context.fillText(hasKeyframes ? formatted(channel, this.state.value(name)) : "–", left - 6, middle)
    context.globalAlpha = 1
    this.drawAxis(context, colours, layout, name)
  }

  /** The limits of a channel at the right end of its lane. */
  drawAxis(context, colours, layout, name) {
    const { low, high, top, height } = this.valueRange(layout, name)
    context.font = `${AXIS_FONT} ${colours.font}`
    context.fillStyle = colours.text
    context.globalAlpha = name === this.state.active ? 0.75 : 0.4
    context.fillText(`${high}`, layout.width - 2, top + 1)
    context.fillText(`${low}`, layout.width - 2, top + height)
    context.globalAlpha = 0.08
    context.fillRect(layout.left, Math.round(top), layout.width - layout.left, 1)
    context.fillRect(layout.left, Math.round(top + height), layout.width - layout.left, 1)
    context.font = `11px ${colours.font}`
    context.globalAlpha = 1
  }

  /** The loudest of what falls into each pixel. */
  drawWaveform(context, colours, layout) {
    const waveform = this.state.waveform()
    if (!waveform) return
    const { peaks, seconds } = waveform
    const { left, width, height } = layout
    const middle = (RULER + height) / 2, half = (height - RULER) / 2 - 4
    const indexAt = (x) => (this.timeAt(layout, x) / seconds) * peaks.length
    context.globalAlpha = 0.13
    context.fillStyle = colours.text
    for (let x = left; x < width; x++) {
      const first = Math.max(0, Math.floor(indexAt(x))), last = Math.min(peaks.length, Math.ceil(indexAt(x + 1)))
      let loudest = -1
      for (let index = first; index < last; index++) loudest = Math.max(loudest, peaks[index])
      if (loudest >= 0) context.fillRect(x, middle - 0.5 - (loudest / 100) * half, 1, 1 + (loudest / 50) * half)
    }
    context.globalAlpha = 1
  }

  drawCurve(context, colours, layout, name) {
    const { curves, selected, active } = this.state
    const curve = curves[name]
    if (!curve?.length) return
    const { left, width } = layout
    const curveSlopes = slopes(curve)
    context.strokeStyle = colours.channel(name)
    context.lineWidth = name === active ? 2 : 1.5
    context.lineJoin = "round"
    context.beginPath()
    for (let x = left; x <= width; x += 1.5) {
      context.lineTo(x, this.y(layout, name, valueAt(curve, this.timeAt(layout, x), curveSlopes)))
    }
    context.stroke()
    for (const keyframe of this.visible(layout, curve)) {
      this.drawKeyframe(context, colours, layout, name, keyframe, selected.has(keyframe))
    }
  }

  /** A diamond where the curve is smooth, a triangle where it is straight, a square where it is held. */
  drawKeyframe(context, colours, layout, name, keyframe, selected) {
    const x = this.x(layout, keyframe[0]), y = this.y(layout, name, keyframe[1])
    const size = selected ? KEYFRAME : 4.5, flat = size * 0.8
    const shape = {
      smooth: [[0, -size], [size, 0], [0, size], [-size, 0]],
      linear: [[-flat, flat], [0, -size], [flat, flat]],
      hold: [[-flat, -flat], [flat, -flat], [flat, flat], [-flat, flat]],
    }[easingOf(keyframe)]
    context.beginPath()
    for (const [dx, dy] of shape) context.lineTo(x + dx, y + dy)
    context.closePath()
    context.fillStyle = selected ? colours.text : colours.channel(name)
    context.fill()
    context.lineWidth = 1.5
    context.strokeStyle = selected ? colours.channel(name) : colours.back
    context.stroke()
  }

  /** Dims what lies after the end of the control. */
  dimAfterEnd(context, colours, layout) {
    const { width, height, right } = layout
    const end = this.x(layout, this.state.duration())
    if (end >= right - 1) return
    context.globalAlpha = 0.55
    context.fillStyle = colours.back
    context.fillRect(end, RULER, width - end, height - RULER)
  }

  drawSelectionBox(context, colours) {
    const box = this.gesture?.box?.()
    if (!box) return
    context.strokeStyle = context.fillStyle = colours.text
    context.globalAlpha = 0.1
    context.fillRect(...box)
    context.globalAlpha = 0.6
    context.strokeRect(...box)
    context.globalAlpha = 1
  }

  /** Draws the background of a gizmo, a square of width `layout.side`; returns its centre and half its width. */
  drawFrame(context, colours, layout) {
    const half = layout.side / 2 - 1
    const x = half + 1, y = layout.height / 2
    context.fillStyle = colours.text
    context.globalAlpha = 0.04
    context.beginPath()
    context.roundRect(x - half, y - half, 2 * half, 2 * half, 6)
    context.fill()
    context.globalAlpha = 1
    context.strokeStyle = colours.line
    context.lineWidth = 1
    context.stroke()
    return { x, y, half }
  }
}
