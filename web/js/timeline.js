// What the editor shows: the lanes of the channels with their curves, and where everything lies on the canvas.

import * as k from "./keyframes.js"

export const RULER = 20
export const GAP = 8
const LABELS = 96

/** Of an editor with a `state` (see state.js) and a `gesture` (see pointer.js); drawn on the `canvas` in its `root`. */
export class Timeline {
  layout() {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight
    const side = Math.max(60, Math.min(height, width * 0.34))
    const left = side + GAP + LABELS
    const lane = (height - RULER) / this.state.names.length
    return { width, height, side, left, right: width - 10, lane, seconds: this.state.shown() }
  }

  x(layout, time) {
    return layout.left + 6 + (time / layout.seconds) * (layout.right - layout.left - 6)
  }

  timeAt(layout, x) {
    return ((x - layout.left - 6) / (layout.right - layout.left - 6)) * layout.seconds
  }

  y(layout, name, value) {
    const [low, high] = k.range(this.state.channels[name], this.state.more())
    const top = RULER + this.state.names.indexOf(name) * layout.lane + 6
    return top + (1 - (k.clamp(value, low, high) - low) / (high - low)) * (layout.lane - 12)
  }

  valueOf(layout, name, y) {
    const [low, high] = k.range(this.state.channels[name], this.state.more())
    const top = RULER + this.state.names.indexOf(name) * layout.lane + 6
    return high - ((y - top) / (layout.lane - 12)) * (high - low)
  }

  laneAt(layout, y) {
    return y < RULER ? null : (this.state.names[Math.floor((y - RULER) / layout.lane)] ?? null)
  }

  /** Every keyframe as a point of the canvas. */
  points(layout) {
    return Object.entries(this.state.curves).flatMap(([name, curve]) =>
      curve.map((keyframe) => ({ x: this.x(layout, keyframe[0]), y: this.y(layout, name, keyframe[1]), name, keyframe })),
    )
  }

  /** The theme's colours as the page has them now, and a colour for each channel that can be seen on them. */
  colours() {
    const style = getComputedStyle(this.root)
    const [r, g, b] = style.backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0]
    const dark = 0.3 * r + 0.59 * g + 0.11 * b < 140
    const hues = [210, 145, 30, 280, 340, 180]
    const channel = (name) => `hsl(${hues[this.state.names.indexOf(name) % 6]} ${dark ? "75% 68%" : "80% 32%"})`
    return { text: style.color, back: style.backgroundColor, line: style.outlineColor, dark, channel, font: style.fontFamily }
  }

  drawError(context, colours) {
    context.fillStyle = colours.text
    const words = `${this.state.error} The remove button clears them.`.split(" ")
    let line = "", y = 30
    for (const word of words) {
      if (context.measureText(`${line} ${word}`).width > this.canvas.clientWidth - 24) {
        context.fillText(line, 12, y)
        ;[line, y] = ["", y + 18]
      }
      line += (line && " ") + word
    }
    context.fillText(line, 12, y)
  }

  drawTimeline(context, colours, layout) {
    const { left, right, height, width, lane } = layout
    const end = this.x(layout, this.state.duration())
    this.drawLanes(context, colours, layout)
    this.drawWaveform(context, colours, layout)
    this.drawRuler(context, colours, layout)
    context.save()
    context.beginPath()
    context.rect(left, RULER, width - left, height - RULER)
    context.clip()
    for (const name of this.state.names) this.drawCurve(context, colours, layout, name)
    if (end < right - 1) {
      context.globalAlpha = 0.55 // past the end of the control
      context.fillStyle = colours.back
      context.fillRect(end, RULER, width - end, height - RULER)
    }
    context.restore()
    const box = this.gesture?.box?.()
    if (box) {
      context.strokeStyle = context.fillStyle = colours.text
      context.globalAlpha = 0.1
      context.fillRect(...box)
      context.globalAlpha = 0.6
      context.strokeRect(...box)
      context.globalAlpha = 1
    }
    const x = this.x(layout, this.state.playhead)
    context.strokeStyle = context.fillStyle = colours.text
    context.lineWidth = 1
    context.beginPath()
    context.moveTo(x, 8)
    context.lineTo(x, RULER + lane * this.state.names.length)
    context.stroke()
    context.beginPath()
    context.moveTo(x - 5, 2)
    context.lineTo(x + 5, 2)
    context.lineTo(x + 5, 8)
    context.lineTo(x, 14)
    context.lineTo(x - 5, 8)
    context.fill()
  }

  drawLanes(context, colours, layout) {
    const { left, width, side, lane } = layout
    const { names, channels, curves, active } = this.state
    const focused = document.activeElement === this.canvas
    names.forEach((name, index) => {
      const channel = channels[name]
      const top = RULER + index * lane
      context.fillStyle = colours.text
      context.globalAlpha = name === active ? 0.1 : index % 2 ? 0 : 0.03
      context.fillRect(side + GAP, top, width - side - GAP, lane)
      context.globalAlpha = 0.16
      const rest = Math.round(this.y(layout, name, channel.rest)) + 0.5
      context.fillRect(left, rest - 0.5, width - left, 1)
      context.globalAlpha = 1
      if (name === active) {
        context.fillStyle = colours.channel(name)
        context.globalAlpha = focused ? 1 : 0.5
        context.fillRect(side + GAP, top, 3, lane)
        context.globalAlpha = 1
      }
      const middle = top + lane / 2
      const used = curves[name]?.length
      context.textBaseline = "middle"
      context.textAlign = "left"
      context.fillStyle = used ? colours.channel(name) : colours.text
      context.globalAlpha = used || name === active ? 1 : 0.6
      context.fillText(channel.label, side + GAP + 9, middle)
      context.textAlign = "right"
      context.fillStyle = colours.text
      context.fillText(used ? k.written(channel, this.state.value(name)) : "–", left - 6, middle)
      context.globalAlpha = 1
    })
  }

  drawWaveform(context, colours, layout) {
    const { waveform } = this.state
    if (!waveform || !this.state.hasAudio()) return
    const { peaks, seconds } = waveform
    const middle = (RULER + layout.height) / 2, reach = (layout.height - RULER) / 2 - 4
    const at = (index) => this.x(layout, (index / peaks.length) * seconds)
    context.beginPath()
    peaks.forEach((peak, index) => context.lineTo(at(index + 0.5), middle - 0.5 - (peak / 100) * reach))
    for (let i = peaks.length - 1; i >= 0; i--) context.lineTo(at(i + 0.5), middle + 0.5 + (peaks[i] / 100) * reach)
    context.globalAlpha = 0.13
    context.fillStyle = colours.text
    context.fill()
    context.globalAlpha = 1
  }

  drawRuler(context, colours, layout) {
    const { left, right, seconds } = layout
    const pixels = (right - left) / seconds
    const step = k.tickStep(pixels)
    context.fillStyle = colours.text
    context.textBaseline = "middle"
    context.textAlign = "center"
    for (let index = 0; index * step <= seconds + 1e-6; index++) {
      const x = Math.round(this.x(layout, index * step))
      context.globalAlpha = 0.12
      context.fillRect(x, RULER, 1, layout.height - RULER)
      context.globalAlpha = 0.7
      context.fillText(`${k.round(index * step, 10)}`, Math.min(x, layout.width - 8), 10)
    }
    context.globalAlpha = 1
  }

  drawCurve(context, colours, layout, name) {
    const { curves, selected, active } = this.state
    const curve = curves[name]
    if (!curve?.length) return
    const { left, width } = layout
    const slopes = k.slopes(curve)
    context.strokeStyle = colours.channel(name)
    context.lineWidth = name === active ? 2 : 1.5
    context.lineJoin = "round"
    context.beginPath()
    for (let x = left; x <= width; x += 1.5) {
      context.lineTo(x, this.y(layout, name, k.valueAt(curve, this.timeAt(layout, x), slopes)))
    }
    context.stroke()
    for (const keyframe of curve) {
      const x = this.x(layout, keyframe[0]), y = this.y(layout, name, keyframe[1])
      const chosen = selected.has(keyframe)
      const size = chosen ? 6 : 4.5
      context.beginPath()
      context.moveTo(x, y - size)
      context.lineTo(x + size, y)
      context.lineTo(x, y + size)
      context.lineTo(x - size, y)
      context.closePath()
      context.fillStyle = chosen ? colours.text : colours.channel(name)
      context.fill()
      context.lineWidth = 1.5
      context.strokeStyle = chosen ? colours.channel(name) : colours.back
      context.stroke()
    }
  }

  /** The frame of a gizmo: a square with its side as wide as `layout.side`; returns its middle and half side. */
  drawFrame(context, colours, layout) {
    const half = layout.side / 2 - 1
    const middle = { x: half + 1, y: layout.height / 2 }
    context.fillStyle = colours.text
    context.globalAlpha = 0.04
    context.beginPath()
    context.roundRect(middle.x - half, middle.y - half, 2 * half, 2 * half, 6)
    context.fill()
    context.globalAlpha = 1
    context.strokeStyle = colours.line
    context.lineWidth = 1
    context.stroke()
    return { ...middle, half }
  }
}
