// The face in the expression editor, seen from the front: its lids, brows, eyes and mouth follow the channels.

import { clamp } from "./keyframes.js"

// in half sides of the frame, from its centre; y up
export const EYE = { x: 0.36, y: 0.12, width: 0.21, height: 0.15 }
export const BROW_Y = 0.42
export const MOUTH_Y = -0.45
const MOUTH_WIDTH = 0.27
const SKULL = { x: 0.74, y: 0.92 }

/** frame: {x, y, half} in pixels. value(name): of a channel now. */
export function drawFace(context, colours, frame, value) {
  const at = (x, y) => [frame.x + x * frame.half, frame.y - y * frame.half]
  context.lineCap = context.lineJoin = "round"
  context.strokeStyle = colours.text
  context.lineWidth = 1.5
  context.globalAlpha = 0.5
  context.beginPath()
  context.ellipse(...at(0, 0), SKULL.x * frame.half, SKULL.y * frame.half, 0, 0, 7)
  context.stroke()
  drawLine(context, colours.text, [at(0, 0.06), at(0.06, -0.16), at(-0.03, -0.18)], 1.5)
  // the person's left is the picture's right
  for (const [side, name] of [[1, "blink left"], [-1, "blink right"]]) {
    drawEye(context, colours, frame, at, side, value(name), name, value)
    drawBrow(context, colours, at, side, value("brows"))
  }
  drawMouth(context, colours, at, value)
  context.globalAlpha = 1
}

function drawLine(context, colour, points, width) {
  context.beginPath()
  for (const point of points) context.lineTo(...point)
  context.strokeStyle = colour
  context.lineWidth = width
  context.stroke()
}

function drawBrow(context, colours, at, side, brows) {
  const y = BROW_Y + 0.12 * brows, inner = 0.05 * Math.min(brows, 0)
  context.globalAlpha = 1
  context.strokeStyle = colours.channel("brows")
  context.lineWidth = 3
  context.beginPath()
  context.moveTo(...at(side * 0.16, y - 0.02 + inner))
  context.quadraticCurveTo(...at(side * 0.38, y + 0.1), ...at(side * 0.58, y - 0.04))
  context.stroke()
}

function drawEye(context, colours, frame, at, side, blink, name, value) {
  const { x, y, width, height } = EYE
  const left = at(side * x - width, y), right = at(side * x + width, y)
  const open = clamp(1 - blink, -0.1, 1.6), narrow = clamp(value("squint"), -0.5, 1)
  const upper = at(side * x, y + 2 * height * open * (1 - 0.3 * narrow))
  const lower = at(side * x, y - 2 * height * (open > 0.1 ? 0.75 * (1 - 0.9 * narrow) : 0.3))
  const lids = new Path2D()
  lids.moveTo(...left)
  lids.quadraticCurveTo(...upper, ...right)
  context.globalAlpha = 1
  if (open > 0.1) {
    lids.quadraticCurveTo(...lower, ...left)
    const pupil = at(side * x + 0.09 * value("gaze horizontal"), y + 0.07 * value("gaze vertical"))
    context.save()
    context.clip(lids)
    context.fillStyle = colours.channel("gaze horizontal")
    context.beginPath()
    context.arc(...pupil, 0.1 * frame.half, 0, 7)
    context.fill()
    context.restore()
  }
  context.strokeStyle = colours.channel(name)
  context.lineWidth = 2.5
  context.stroke(lids)
}

function drawMouth(context, colours, at, value) {
  const width = MOUTH_WIDTH * (1 + 0.3 * value("mouth wide")) * (1 - 0.4 * clamp(value("mouth round"), 0, 1))
  const open = 0.02 + 0.26 * clamp(value("mouth open"), 0, 2) + 0.05 * clamp(value("mouth round"), 0, 2)
  const corner = MOUTH_Y + 0.12 * value("smile")
  const left = at(-width, corner), right = at(width, corner)
  context.globalAlpha = 0.35
  context.fillStyle = colours.channel("mouth open")
  context.beginPath()
  context.moveTo(...left)
  context.quadraticCurveTo(...at(0, MOUTH_Y + open), ...right)
  context.quadraticCurveTo(...at(0, MOUTH_Y - 2 * open), ...left)
  context.fill()
  context.globalAlpha = 1
  context.strokeStyle = colours.channel("smile")
  context.lineWidth = 2.5
  context.stroke()
}
