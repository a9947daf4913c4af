// Gaze: a pad with two eyes that look where the hand is.

import { install, KeyframeEditor } from "./editor.js"
import { clamp, range } from "./keyframes.js"
import { dragValues } from "./pointer.js"

class GazeEditor extends KeyframeEditor {
  static laneHeight = 72

  reach(layout) {
    const { channels } = this.state
    const [, across] = range(channels.horizontal, this.state.more())
    const [, up] = range(channels.vertical, this.state.more())
    const room = layout.side / 2 - 12
    return { x: layout.side / 2, y: layout.height / 2, across: room / across, up: room / up }
  }

  grabGizmo(layout) {
    const { x, y, across, up } = this.reach(layout)
    return dragValues(this.state, (point, event) => {
      const horizontal = (point.x - x) / across, vertical = (y - point.y) / up
      // near the middle, exactly the camera
      const close = !event.shiftKey && Math.hypot(point.x - x, point.y - y) < 4
      return close ? { horizontal: 0, vertical: 0 } : { horizontal, vertical }
    })
  }

  gizmoCursor() {
    return "crosshair"
  }

  drawGizmo(context, colours, layout) {
    const { x, y, half } = this.drawFrame(context, colours, layout)
    const { across, up } = this.reach(layout)
    const horizontal = this.state.value("horizontal"), vertical = this.state.value("vertical")
    context.beginPath()
    context.roundRect(x - half, y - half, 2 * half, 2 * half, 6)
    context.clip()
    const width = half * 0.4, high = half * 0.27
    for (const side of [-1, 1]) {
      const middle = x + side * half * 0.47
      context.save()
      context.beginPath()
      context.moveTo(middle - width, y)
      context.quadraticCurveTo(middle, y - 2 * high, middle + width, y)
      context.quadraticCurveTo(middle, y + 2 * high, middle - width, y)
      context.globalAlpha = 0.12
      context.fillStyle = colours.text
      context.fill()
      context.globalAlpha = 0.8
      context.strokeStyle = colours.text
      context.lineWidth = 1.5
      context.stroke()
      context.clip()
      const turn = (degrees) => Math.sin((clamp(degrees, -60, 60) * Math.PI) / 180)
      const px = middle + turn(horizontal) * width * 1.15, py = y - turn(vertical) * width * 1.15
      context.globalAlpha = 1
      context.fillStyle = colours.channel("horizontal")
      context.beginPath()
      context.arc(px, py, high * 0.78, 0, 7)
      context.fill()
      context.fillStyle = colours.back
      context.beginPath()
      context.arc(px, py, high * 0.36, 0, 7)
      context.fill()
      context.restore()
    }
    context.globalAlpha = 0.25
    context.fillStyle = colours.text
    context.fillRect(x - half, y - 0.5, 2 * half, 1)
    context.fillRect(x - 0.5, y - half, 1, 2 * half)
    context.globalAlpha = 1
    const dot = [x + horizontal * across, y - vertical * up]
    context.strokeStyle = colours.back
    context.lineWidth = 3
    context.beginPath()
    context.arc(...dot, 6, 0, 7)
    context.stroke()
    context.fillStyle = colours.channel("vertical")
    context.fill()
  }
}

install("IMTalkerGazeControl", GazeEditor)
