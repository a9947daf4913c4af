// Gaze Control: drag on a pad with two eyes; they look at the pointer.

import { install, KeyframeEditor } from "./editor.js"
import { clamp } from "./keyframes.js"
import { dragValues } from "./pointer.js"

const MARGIN = 12 // pixels between the edge of the frame and the limits
const SNAP_RADIUS = 4 // pixels

class GazeEditor extends KeyframeEditor {
  static laneHeight = 72

  /** The middle of the pad, and its pixels per degree. */
  pad(layout) {
    const half = layout.side / 2 - MARGIN
    const [across, up] = ["horizontal", "vertical"].map((name) => half / this.state.range(name)[1])
    return { x: layout.side / 2, y: layout.height / 2, across, up }
  }

  grabGizmo(layout) {
    const { x, y, across, up } = this.pad(layout)
    return dragValues(this.state, (point, event) => {
      const snaps = !event.shiftKey && Math.hypot(point.x - x, point.y - y) < SNAP_RADIUS
      if (snaps) return { horizontal: 0, vertical: 0 } // straight into the camera
      return { horizontal: (point.x - x) / across, vertical: (y - point.y) / up }
    })
  }

  gizmoCursor() {
    return "crosshair"
  }

  drawGizmo(context, colours, layout) {
    const frame = this.drawFrame(context, colours, layout)
    const { x, y, half } = frame
    context.beginPath()
    context.roundRect(x - half, y - half, 2 * half, 2 * half, 6)
    context.clip()
    for (const side of [-1, 1]) this.drawEye(context, colours, { x: x + side * half * 0.47, y, half })
    this.drawTarget(context, colours, layout, frame)
  }

  /** half: half the width of the frame, which the eye's size follows. */
  drawEye(context, colours, { x, y, half }) {
    const width = half * 0.4, height = half * 0.27
    context.save()
    context.beginPath()
    context.moveTo(x - width, y)
    context.quadraticCurveTo(x, y - 2 * height, x + width, y)
    context.quadraticCurveTo(x, y + 2 * height, x - width, y)
    context.globalAlpha = 0.12
    context.fillStyle = colours.text
    context.fill()
    context.globalAlpha = 0.8
    context.strokeStyle = colours.text
    context.lineWidth = 1.5
    context.stroke()
    context.clip()
    const offset = (name) => Math.sin((clamp(this.state.value(name), -60, 60) * Math.PI) / 180) * width * 1.15
    const pupil = [x + offset("horizontal"), y - offset("vertical")]
    context.globalAlpha = 1
    fillCircle(context, colours.channel("horizontal"), pupil, height * 0.78)
    fillCircle(context, colours.back, pupil, height * 0.36)
    context.restore()
  }

  /** The cross through the camera, and the point that the eyes look at. */
  drawTarget(context, colours, layout, { x, y, half }) {
    const { across, up } = this.pad(layout)
    context.globalAlpha = 0.25
    context.fillStyle = colours.text
    context.fillRect(x - half, y - 0.5, 2 * half, 1)
    context.fillRect(x - 0.5, y - half, 1, 2 * half)
    context.globalAlpha = 1
    const target = [x + this.state.value("horizontal") * across, y - this.state.value("vertical") * up]
    context.strokeStyle = colours.back
    context.lineWidth = 3
    context.beginPath()
    context.arc(...target, 6, 0, 7)
    context.stroke()
    context.fillStyle = colours.channel("vertical")
    context.fill()
  }
}

function fillCircle(context, colour, centre, radius) {
  context.fillStyle = colour
  context.beginPath()
  context.arc(...centre, radius, 0, 7)
  context.fill()
}

install("IMTalkerGazeControl", GazeEditor)
