// The timeline of a keyframe editor: where everything is on the canvas, and how the lanes and curves are drawn.

import { NodeCanvas } from "./canvas.js"
import { clamp, formatted, round, slopes, tickStep, valueAt } from "./keyframes.js"

// in pixels
export const RULER = 20 // height
export const GAP = 8 // between the gizmo and the lanes
export const LANE_PADDING = 6 // above and below the range of values
const LABELS = 96 // width
const CURVE_PADDING = 6 // left of time 0
const LINE_HEIGHT = 18 // of an error message

/** Needs a `state` (see state.js) and a `gesture` (see pointer.js). */
export class Timeline extends NodeCanvas {
  /** The gizmo is a square of width `side` at the left; the lanes' curves run from `left` to `right`. */
  layout() {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight
    const side = Math.max(60, Math.min(height, width * 0.34))
    const left = side + GAP + LABELS, right = width - 10
    const lane = (height - RULER) / this.state.names.length
    const seconds = this.state.shownSeconds()
    const secondsPerPixel = seconds / (right - left - CURVE_PADDING)
    return { width, height, side, left, right, lane, seconds, secondsPerPixel }
  }

  x(layout, time) {
    return layout.left + CURVE_PADDING + time / layout.secondsPerPixel
  }

  timeAt(layout, x) {
    return (x - layout.left - CURVE_PADDING) * layout.secondsPerPixel
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

  /** Every keyframe with its position on the canvas: {x, y, name, keyframe}. */
  points(layout) {
    return Object.entries(this.state.curves).flatMap(([name, curve]) =>
      curve.map((keyframe) => {
        const [time, value] = keyframe
        return { x: this.x(layout, time), y: this.y(layout, name, value), name, keyframe }
      }),
    )
  }

  colours() {
    const colours = super.colours()
    return { ...colours, channel: (name) => colours.curve(this.state.names.indexOf(name)) }
  }

  drawError(context, colours) {
    context.fillStyle = colours.text
    const words = `${this.state.error} Click the bin to clear them.`.split(" ")
    let line = "", y = 30
    for (const word of words) {
      if (context.measureText(`${line} ${word}`).width > this.canvas.clientWidth - 24) {
        context.fillText(line, 12, y)
        ;[line, y] = ["", y + LINE_HEIGHT]
      }
      line += (line && " ") + word
    }
    context.fillText(line, 12, y)
  }

  drawTimeline(context, colours, layout) {
    const { left, height, width } = layout
    this.state.names.forEach((name, index) => this.drawLane(context, colours, layout, name, index))
    this.drawWaveform(context, colours, layout)
    this.drawRuler(context, colours, layout)
    context.save()
    context.beginPath()
    context.rect(left, RULER, width - left, height - RULER)
    context.clip()
    for (const name of this.state.names) this.drawCurve(context, colours, layout, name)
    this.dimAfterEnd(context, colours, layout)
    context.restore()
    this.drawSelectionBox(context, colours)
    this.drawPlayhead(context, colours, layout)
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
    context.fillText(channel.label, side + GAP + 9, middle)
    context.textAlign = "right"
    context.fillStyle = colours.text
    context.fillText(hasKeyframes ? formatted(channel, this.state.value(name)) : "–", left - 6, middle)
    context.globalAlpha = 1
  }

  drawWaveform(context, colours, layout) {
    const { waveform } = this.state
    if (!waveform || !this.state.hasAudio()) return
    const { peaks, seconds } = waveform
    const middle = (RULER + layout.height) / 2, half = (layout.height - RULER) / 2 - 4
    const at = (index) => this.x(layout, ((index + 0.5) / peaks.length) * seconds)
    context.beginPath()
    peaks.forEach((peak, index) => context.lineTo(at(index), middle - 0.5 - (peak / 100) * half))
    for (let i = peaks.length - 1; i >= 0; i--) context.lineTo(at(i), middle + 0.5 + (peaks[i] / 100) * half)
    context.globalAlpha = 0.13
    context.fillStyle = colours.text
    context.fill()
    context.globalAlpha = 1
  }

  drawRuler(context, colours, layout) {
    const { left, right, seconds } = layout
    const step = tickStep((right - left) / seconds)
    context.fillStyle = colours.text
    context.textBaseline = "middle"
    context.textAlign = "center"
    for (let index = 0; index * step <= seconds + 1e-6; index++) {
      const x = Math.round(this.x(layout, index * step))
      context.globalAlpha = 0.12
      context.fillRect(x, RULER, 1, layout.height - RULER)
      context.globalAlpha = 0.7
      context.fillText(`${round(index * step, 10)}`, Math.min(x, layout.width - 8), 10)
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
    for (const keyframe of curve) this.drawKeyframe(context, colours, layout, name, keyframe, selected.has(keyframe))
  }

  drawKeyframe(context, colours, layout, name, [time, value], selected) {
    const x = this.x(layout, time), y = this.y(layout, name, value)
    const size = selected ? 6 : 4.5
    context.beginPath()
    context.moveTo(x, y - size)
    context.lineTo(x + size, y)
    context.lineTo(x, y + size)
    context.lineTo(x - size, y)
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

  drawPlayhead(context, colours, layout) {
    const x = this.x(layout, this.state.playhead)
    context.strokeStyle = context.fillStyle = colours.text
    context.lineWidth = 1
    context.beginPath()
    context.moveTo(x, 8)
    context.lineTo(x, layout.height)
    context.stroke()
    context.beginPath()
    context.moveTo(x - 5, 2)
    context.lineTo(x + 5, 2)
    context.lineTo(x + 5, 8)
    context.lineTo(x, 14)
    context.lineTo(x - 5, 8)
    context.fill()
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
