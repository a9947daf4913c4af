// The head in the pose editor: an ellipsoid with a face drawn on it, turned like the control turns the head.

import { turned } from "./keyframes.js"

const SKULL = [0.72, 0.95, 0.84] // half axes: right, up and to the camera
const DEGREES = Math.PI / 180
const STEPS = 24 // of a curve

const sin = (degrees) => Math.sin(degrees * DEGREES)
const cos = (degrees) => Math.cos(degrees * DEGREES)

/** Points of a curve, from `pointAt(t)` with t from `start` to `end`. */
const curve = (start, end, pointAt) =>
  Array.from({ length: STEPS + 1 }, (_, step) => pointAt(start + ((end - start) * step) / STEPS))

/** A point on the skull, from two angles in degrees seen from the front; scale: 1 on it, more in front of it. */
function onSkull(right, up, scale = 1) {
  const x = sin(right), y = sin(up)
  const z = Math.sqrt(Math.max(0, 1 - x ** 2 - y ** 2))
  return [x * SKULL[0] * scale, y * SKULL[1] * scale, z * SKULL[2] * scale]
}

const EYES = [-1, 1].flatMap((side) => {
  const arc = (height, rise) => curve(9, 33, (u) => onSkull(side * u, height + rise * sin(((u - 9) / 24) * 180)))
  const pupil = curve(0, 360, (angle) => onSkull(side * (21 + 3 * cos(angle)), 4.5 + 2.6 * sin(angle)))
  return [
    { points: arc(10, 5), width: 1.5, alpha: 0.85 }, // brow
    { points: arc(4, 4), width: 1.5, alpha: 0.9 }, // upper lid
    { points: arc(4, -3), width: 1, alpha: 0.9 }, // lower lid
    { points: pupil, width: 2, alpha: 0.9 },
  ]
})
const MOUTH = { points: curve(-17, 17, (u) => onSkull(u, -31 - 3 * cos((u / 17) * 90))), width: 2, alpha: 0.9 }
const NOSE = { points: [onSkull(0, 6, 1.02), onSkull(0, -12, 1.22), onSkull(7, -15, 1.04)], width: 1.8, alpha: 0.95 }
// lines down and across the face, which yaw and pitch move
const GUIDES = {
  yaw: { points: curve(-90, 90, (v) => [0, SKULL[1] * sin(v), SKULL[2] * cos(v)]), width: 1.2, alpha: 0.7 },
  pitch: { points: curve(-90, 90, (u) => [SKULL[0] * sin(u), 0.08, SKULL[2] * cos(u)]), width: 1.2, alpha: 0.7 },
}

/** x, y: the head's centre on the canvas; unit: its pixels per unit; angles: yaw, pitch and roll in degrees. */
export function drawHead(context, colours, { x, y, unit }, angles) {
  const project = (point) => {
    const [right, up, near] = turned(point, ...angles)
    return [x + right * unit, y - up * unit, near]
  }
  drawSkull(context, colours, { x, y, unit }, angles, project([0, 0, SKULL[2]]))
  context.lineCap = "round"
  for (const [channel, line] of Object.entries(GUIDES)) drawLine(context, colours.channel(channel), line, project)
  for (const line of [...EYES, MOUTH, NOSE]) drawLine(context, colours.text, line, project)
  context.globalAlpha = 1
}

/** light: where the shading is brightest, the point of the face nearest to the camera at rest. */
function drawSkull(context, colours, { x, y, unit }, angles, light) {
  const { radii, tilt } = outline(angles)
  context.beginPath()
  context.ellipse(x, y, unit * radii[0], unit * radii[1], tilt, 0, 7)
  const shade = context.createRadialGradient(light[0], light[1], unit * 0.1, x, y, unit * 1.1)
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
}

/** The outline of an ellipsoid turned by R is the ellipse of the upper left 2x2 of R diag(axes^2) R^T. */
function outline(angles) {
  const columns = [[1, 0, 0], [0, 1, 0], [0, 0, 1]].map((axis) => turned(axis, ...angles))
  const entry = (i, j) => columns.reduce((sum, column, n) => sum + column[i] * column[j] * SKULL[n] ** 2, 0)
  const a = entry(0, 0), b = -entry(0, 1), c = entry(1, 1)
  const mean = (a + c) / 2, spread = Math.hypot((a - c) / 2, b)
  return { radii: [Math.sqrt(mean + spread), Math.sqrt(mean - spread)], tilt: Math.atan2(2 * b, a - c) / 2 }
}

/** Draws the parts of a line that face the camera. */
function drawLine(context, colour, { points, width, alpha }, project) {
  context.strokeStyle = colour
  context.lineWidth = width
  context.globalAlpha = alpha
  context.beginPath()
  let visible = false
  for (const [x, y, near] of points.map(project)) {
    if (near >= 0 && visible) context.lineTo(x, y)
    else if (near >= 0) context.moveTo(x, y)
    visible = near >= 0
  }
  context.stroke()
}
