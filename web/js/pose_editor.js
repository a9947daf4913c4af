// Pose Control: a head in its crop. Drag the face to turn and nod, the ring to tilt, the lower corners to move or zoom.

import { install, KeyframeEditor } from "./editor.js"
import { drawHead } from "./head.js"
import { dragValues, speed } from "./pointer.js"

const HEAD_SIZE = 0.58 // half sides of the frame per unit of the skull (see head.js) at distance 1
const RING_SIZE = 0.72 // half sides of the frame
const HANDLE_MARGIN = 13 // pixels from the frame's edges to the middle of a handle
const CLICK_RADIUS = 2 // pixels that the pointer may move in a click
const DEGREES = Math.PI / 180
const CURSORS = { move: "move", zoom: "ns-resize", turn: "grab", tilt: "alias" }

class PoseEditor extends KeyframeEditor {
  static laneHeight = 36

  geometry(layout) {
    const half = layout.side / 2 - 1
    const frame = { x: half + 1, y: layout.height / 2, half }
    const unit = (HEAD_SIZE * half) / this.state.value("distance")
    const head = { x: frame.x + 2 * half * this.state.value("x"), y: frame.y - 2 * half * this.state.value("y"), unit }
    const corner = half - HANDLE_MARGIN
    const move = { x: frame.x - corner, y: frame.y + corner }
    const zoom = { x: frame.x + corner, y: frame.y + corner }
    return { frame, head, ring: half * RING_SIZE, move, zoom }
  }

  /** What a drag from this point does: "move", "zoom", "turn", "tilt" or null. */
  actionAt(layout, point) {
    const { frame, ring, move, zoom } = this.geometry(layout)
    const distance = ({ x, y }) => Math.hypot(x - point.x, y - point.y)
    if (distance(move) < 14) return "move"
    if (distance(zoom) < 14) return "zoom"
    if (distance(frame) > frame.half * 1.5) return null
    return distance(frame) < ring - 7 ? "turn" : "tilt"
  }

  gizmoCursor(layout, point) {
    return CURSORS[this.actionAt(layout, point)] ?? "default"
  }

  grabGizmo(layout, start) {
    const action = this.actionAt(layout, start)
    if (!action) return null
    const { frame, head } = this.geometry(layout)
    const [yaw, pitch, roll, distance, x, y] = this.state.names.map((name) => this.state.value(name))
    const angle = (point) => Math.atan2(point.x - frame.x, frame.y - point.y) / DEGREES
    const values = {
      turn: (dx, dy) => ({ yaw: yaw + dx / head.unit / DEGREES, pitch: pitch + dy / head.unit / DEGREES }),
      move: (dx, dy) => ({ x: x + dx / frame.half / 2, y: y + dy / frame.half / 2 }),
      zoom: (dx, dy) => ({ distance: distance * Math.exp(-dy / frame.half) }),
      tilt: (dx, dy, point, factor) => ({ roll: roll + (((angle(point) - angle(start) + 540) % 360) - 180) * factor }),
    }[action]
    return dragValues(this.state, (point, event) => {
      const dx = point.x - start.x, dy = start.y - point.y, factor = speed(event)
      return Math.hypot(dx, dy) > CLICK_RADIUS ? values(dx * factor, dy * factor, point, factor) : {}
    })
  }

  drawGizmo(context, colours, layout) {
    const { frame, head, ring, move, zoom } = this.geometry(layout)
    const { x, y, half } = this.drawFrame(context, colours, layout)
    const [yaw, pitch, roll] = ["yaw", "pitch", "roll"].map((name) => this.state.value(name))
    context.beginPath()
    context.roundRect(x - half, y - half, 2 * half, 2 * half, 6)
    context.clip()
    this.drawRing(context, colours, { ...frame, ring }, roll)
    drawHead(context, colours, head, [yaw, pitch, roll])
    this.drawHandle(context, colours, move, "x", MOVE_ICON)
    this.drawHandle(context, colours, zoom, "distance", ZOOM_ICON)
  }

  drawRing(context, colours, { x, y, ring }, roll) {
    context.strokeStyle = colours.text
    context.lineWidth = 1.5
    context.globalAlpha = 0.25
    context.beginPath()
    context.arc(x, y, ring, 0, 7)
    context.stroke()
    const top = -Math.PI / 2, angle = top + roll * DEGREES
    context.globalAlpha = 1
    context.strokeStyle = context.fillStyle = colours.channel("roll")
    context.lineWidth = 2.5
    context.beginPath()
    context.arc(x, y, ring, Math.min(angle, top), Math.max(angle, top))
    context.stroke()
    context.beginPath()
    context.arc(x + ring * Math.cos(angle), y + ring * Math.sin(angle), 5, 0, 7)
    context.fill()
  }

  /** In the colour of its channel once that has keyframes. */
  drawHandle(context, colours, { x, y }, channel, icon) {
    context.globalAlpha = 1
    context.fillStyle = colours.back
    context.beginPath()
    context.arc(x, y, 10, 0, 7)
    context.fill()
    context.strokeStyle = this.state.curves[channel]?.length ? colours.channel(channel) : colours.text
    context.globalAlpha = 0.9
    context.lineWidth = 1.4
    context.stroke()
    context.beginPath()
    for (const [first, ...others] of icon) {
      context.moveTo(x + first[0], y + first[1])
      for (const [dx, dy] of others) context.lineTo(x + dx, y + dy)
    }
    context.stroke()
  }
}

/** An arrow's head that points along (dx, dy). */
const arrow = (dx, dy) => [
  [dx * 3.5 - dy * 1.8, dy * 3.5 + dx * 1.8],
  [dx * 6, dy * 6],
  [dx * 3.5 + dy * 1.8, dy * 3.5 - dx * 1.8],
]
const ACROSS = [[-6, 0], [6, 0]], UPRIGHT = [[0, -6], [0, 6]]
const MOVE_ICON = [ACROSS, UPRIGHT, arrow(1, 0), arrow(-1, 0), arrow(0, 1), arrow(0, -1)]
const ZOOM_ICON = [UPRIGHT, arrow(0, 1), arrow(0, -1), [[-3, 0], [3, 0]]]

install("IMTalkerPoseControl", PoseEditor)
