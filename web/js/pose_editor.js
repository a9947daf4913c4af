// Pose: a head in its crop. Drag the face to turn and nod, the ring to tilt, the lower corners to move and to zoom.

import { install, KeyframeEditor } from "./editor.js"
import { turned } from "./keyframes.js"
import { dragValues } from "./pointer.js"

const HEAD = [0.72, 0.95, 0.84] // half axes of the skull; its height is 1.9 of them
const SHARE = 0.58 // of the frame's half side that one of these units has at distance 1
const DEGREES = Math.PI / 180

class PoseEditor extends KeyframeEditor {
  static laneHeight = 36

  geometry(layout) {
    const half = layout.side / 2 - 1
    const frame = { x: half + 1, y: layout.height / 2, half }
    const unit = (SHARE * half) / this.state.value("distance")
    const middle = { x: frame.x + 2 * half * this.state.value("x"), y: frame.y - 2 * half * this.state.value("y") }
    const corner = half - 13
    return {
      frame,
      unit,
      ...middle,
      ring: half * 0.72,
      move: { x: frame.x - corner, y: frame.y + corner },
      zoom: { x: frame.x + corner, y: frame.y + corner },
    }
  }

  partAt(layout, point) {
    const { frame, ring, move, zoom } = this.geometry(layout)
    const near = (place) => Math.hypot(place.x - point.x, place.y - point.y) < 14
    if (near(move)) return "move"
    if (near(zoom)) return "zoom"
    const away = Math.hypot(point.x - frame.x, point.y - frame.y)
    if (away > frame.half * 1.5) return null
    return away < ring - 7 ? "turn" : "tilt"
  }

  gizmoCursor(layout, point) {
    return { move: "move", zoom: "ns-resize", turn: "grab", tilt: "alias" }[this.partAt(layout, point)] ?? "default"
  }

  grabGizmo(layout, start) {
    const { frame, unit } = this.geometry(layout)
    const [yaw, pitch, roll, distance, x, y] = this.state.names.map((name) => this.state.value(name))
    const slow = (event) => (event.shiftKey ? 0.2 : 1)
    const by = (point, event) => [(point.x - start.x) * slow(event), (start.y - point.y) * slow(event)]
    const moved = (point) => Math.hypot(point.x - start.x, point.y - start.y) > 2
    const angle = (point) => Math.atan2(point.x - frame.x, frame.y - point.y) / DEGREES
    const acts = {
      turn: (dx, dy) => ({ yaw: yaw + dx / unit / DEGREES, pitch: pitch + dy / unit / DEGREES }),
      move: (dx, dy) => ({ x: x + dx / frame.half / 2, y: y + dy / frame.half / 2 }),
      zoom: (dx, dy) => ({ distance: distance * Math.exp(-dy / frame.half) }),
    }
    const part = this.partAt(layout, start)
    if (!part) return null
    if (part === "tilt") {
      const turn = (point) => ((angle(point) - angle(start) + 540) % 360) - 180
      return dragValues(this.state, (point, event) => (moved(point) ? { roll: roll + turn(point) * slow(event) } : {}))
    }
    return dragValues(this.state, (point, event) => (moved(point) ? acts[part](...by(point, event)) : {}))
  }

  drawGizmo(context, colours, layout) {
    const place = this.geometry(layout)
    const { half } = this.drawFrame(context, colours, layout)
    const angles = ["yaw", "pitch", "roll"].map((name) => this.state.value(name))
    context.beginPath()
    context.roundRect(place.frame.x - half, place.frame.y - half, 2 * half, 2 * half, 6)
    context.clip()
    this.drawRing(context, colours, place, angles[2])
    this.drawHead(context, colours, place, angles)
    this.drawHandles(context, colours, place)
  }

  drawRing(context, colours, { frame, ring }, roll) {
    context.strokeStyle = colours.text
    context.lineWidth = 1.5
    context.globalAlpha = 0.25
    context.beginPath()
    context.arc(frame.x, frame.y, ring, 0, 7)
    context.stroke()
    const at = roll * DEGREES - Math.PI / 2
    context.globalAlpha = 1
    context.strokeStyle = context.fillStyle = colours.channel("roll")
    context.lineWidth = 2.5
    context.beginPath()
    context.arc(frame.x, frame.y, ring, Math.min(at, -Math.PI / 2), Math.max(at, -Math.PI / 2))
    context.stroke()
    context.beginPath()
    context.arc(frame.x + ring * Math.cos(at), frame.y + ring * Math.sin(at), 5, 0, 7)
    context.fill()
  }

  drawHead(context, colours, { x, y, unit }, angles) {
    const project = (point) => {
      const [px, py, pz] = turned(point, ...angles)
      return [x + px * unit, y - py * unit, pz]
    }
    // the outline of an ellipsoid turned by R: the ellipse of the upper left 2x2 of R diag(axes^2) R^T
    const columns = [[1, 0, 0], [0, 1, 0], [0, 0, 1]].map((axis) => turned(axis, ...angles))
    const sum = (i, j) => columns.reduce((total, column, n) => total + column[i] * column[j] * HEAD[n] ** 2, 0)
    const a = sum(0, 0), b = -sum(0, 1), c = sum(1, 1)
    const mean = (a + c) / 2, spread = Math.hypot((a - c) / 2, b)
    const tilt = Math.atan2(2 * b, a - c) / 2
    context.beginPath()
    context.ellipse(x, y, unit * Math.sqrt(mean + spread), unit * Math.sqrt(mean - spread), tilt, 0, 7)
    const [nx, ny] = project([0, 0, HEAD[2]])
    const shade = context.createRadialGradient(nx, ny, unit * 0.1, x, y, unit * 1.1)
    shade.addColorStop(0, colours.text)
    shade.addColorStop(1, "transparent")
    context.fillStyle = colours.back
    context.fill()
    context.globalAlpha = 0.28
    context.fillStyle = shade
    context.fill()
    context.globalAlpha = 0.8
    context.strokeStyle = colours.text
    context.lineWidth = 1.5
    context.stroke()

    const on = (u, v, out = 1) => {
      const [sx, sy] = [HEAD[0] * Math.sin(u * DEGREES), HEAD[1] * Math.sin(v * DEGREES)]
      const depth = Math.sqrt(Math.max(0, 1 - (sx / HEAD[0]) ** 2 - (sy / HEAD[1]) ** 2))
      return [sx * out, sy * out, depth * HEAD[2] * out]
    }
    const line = (points, colour, width, alpha) => {
      context.strokeStyle = colour
      context.lineWidth = width
      context.globalAlpha = alpha
      context.beginPath()
      let drawing = false
      for (const point of points.map(project)) {
        if (point[2] < 0) drawing = false
        else if (drawing) context.lineTo(point[0], point[1])
        else drawing = !context.moveTo(point[0], point[1])
      }
      context.stroke()
    }
    const sweep = (from, to, at) => Array.from({ length: 25 }, (_, i) => at(from + ((to - from) * i) / 24))
    context.lineCap = "round"
    line(sweep(-90, 90, (v) => [0, HEAD[1] * Math.sin(v * DEGREES), HEAD[2] * Math.cos(v * DEGREES)]), colours.channel("yaw"), 1.2, 0.7)
    line(sweep(-90, 90, (u) => [HEAD[0] * Math.sin(u * DEGREES), 0.08, HEAD[2] * Math.cos(u * DEGREES)]), colours.channel("pitch"), 1.2, 0.7)
    for (const side of [-1, 1]) {
      line(sweep(9, 33, (u) => on(side * u, 10 + 5 * Math.sin(((u - 9) / 24) * Math.PI))), colours.text, 1.5, 0.85)
      line(sweep(9, 33, (u) => on(side * u, 4 + 4 * Math.sin(((u - 9) / 24) * Math.PI))), colours.text, 1.5, 0.9)
      line(sweep(9, 33, (u) => on(side * u, 4 - 3 * Math.sin(((u - 9) / 24) * Math.PI))), colours.text, 1, 0.9)
      line(sweep(0, 360, (a) => on(side * (21 + 3 * Math.cos(a * DEGREES)), 4.5 + 2.6 * Math.sin(a * DEGREES))), colours.text, 2, 0.9)
    }
    line(sweep(-17, 17, (u) => on(u, -31 - 3 * Math.cos((u / 17) * Math.PI * 0.5))), colours.text, 2, 0.9)
    line([on(0, 6, 1.02), on(0, -12, 1.22), on(7, -15, 1.04)], colours.text, 1.8, 0.95)
    context.globalAlpha = 1
  }

  drawHandles(context, colours, { move, zoom }) {
    const stroke = (name, { x, y }, segments) => {
      context.globalAlpha = 1
      context.fillStyle = colours.back
      context.beginPath()
      context.arc(x, y, 10, 0, 7)
      context.fill()
      context.strokeStyle = this.state.curves[name]?.length ? colours.channel(name) : colours.text
      context.globalAlpha = 0.9
      context.lineWidth = 1.4
      context.stroke()
      context.beginPath()
      for (const points of segments) points.forEach(([px, py], i) => context[i ? "lineTo" : "moveTo"](x + px, y + py))
      context.stroke()
    }
    const arrow = (dx, dy) => [[dx * 3.5 - dy * 1.8, dy * 3.5 + dx * 1.8], [dx * 6, dy * 6], [dx * 3.5 + dy * 1.8, dy * 3.5 - dx * 1.8]]
    const cross = [[[-6, 0], [6, 0]], [[0, -6], [0, 6]], arrow(1, 0), arrow(-1, 0), arrow(0, 1), arrow(0, -1)]
    stroke("x", move, cross)
    stroke("distance", zoom, [[[0, -6], [0, 6]], arrow(0, 1), arrow(0, -1), [[-3, 0], [3, 0]]])
  }
}

install("IMTalkerPoseControl", PoseEditor)
