// What a timeline shows of time: ruler, loop, playhead, the bar of the selection, and which part of the whole is seen.

import { FPS, span } from "./keyframes.js"
import { tickStep, timeLabel } from "./view.js"

// in pixels
export const RULER = 20 // height
export const GAP = 8 // between the gizmo and the lanes
export const BAR_TOP = 13 // of the selection's bar in the ruler
export const NAVIGATOR = 9 // height, at the bottom while the view is zoomed
const FRAME_TICKS = 5 // at least from frame to frame

/** The selection's bar {x0, x1, first, last}, or null if all it holds is at one time. */
export function selectionBar(editor, layout) {
  const { selected } = editor.state
  if (selected.size < 2) return null
  const [first, last] = span(selected)
  return last > first ? { x0: editor.x(layout, first), x1: editor.x(layout, last), first, last } : null
}

export function drawRuler(editor, context, colours, layout) {
  const { left, right, start, seconds, height } = layout
  const end = start + seconds
  const step = tickStep(1 / layout.secondsPerPixel)
  context.fillStyle = colours.text
  context.textBaseline = "middle"
  context.textAlign = "center"
  if (1 / FPS / layout.secondsPerPixel >= FRAME_TICKS) {
    context.globalAlpha = 0.3
    for (let frame = Math.ceil(start * FPS - 1e-6); frame <= end * FPS + 1e-6; frame++) {
      context.fillRect(Math.round(editor.x(layout, frame / FPS)), RULER - 4, 1, 4)
    }
  }
  for (let index = Math.ceil(start / step - 1e-6); index * step <= end + 1e-6; index++) {
    const x = Math.round(editor.x(layout, index * step))
    context.globalAlpha = 0.12
    context.fillRect(x, RULER, 1, height - RULER)
    context.globalAlpha = 0.7
    const label = timeLabel(index * step, editor.state.frames)
    const half = context.measureText(label).width / 2
    context.fillText(label, Math.min(Math.max(x, left + half), right + 8 - half), 10)
  }
  context.globalAlpha = 1
}

export function drawLoop(editor, context, colours, layout) {
  const { loop } = editor.state
  if (!loop) return
  const [x0, x1] = loop.map((time) => Math.min(Math.max(editor.x(layout, time), layout.left), layout.width))
  context.fillStyle = colours.channel(editor.state.names[0])
  context.globalAlpha = 0.1
  context.fillRect(x0, RULER, x1 - x0, layout.height - RULER)
  context.globalAlpha = 0.9
  context.fillRect(x0, 0, x1 - x0, 3)
  context.fillRect(x0 - 1, 0, 2, RULER)
  context.fillRect(x1 - 1, 0, 2, RULER)
  context.globalAlpha = 1
}

export function drawSelectionBar(editor, context, colours, layout) {
  const bar = selectionBar(editor, layout)
  if (!bar) return
  context.save()
  context.beginPath()
  context.rect(layout.left, 0, layout.width - layout.left, RULER)
  context.clip()
  context.fillStyle = colours.text
  context.globalAlpha = 0.35
  context.fillRect(bar.x0, BAR_TOP + 2, bar.x1 - bar.x0, 3)
  context.globalAlpha = 0.9
  for (const x of [bar.x0, bar.x1]) context.fillRect(x - 2, BAR_TOP, 4, RULER - BAR_TOP)
  context.restore()
}

export function drawPlayhead(editor, context, colours, layout) {
  const x = editor.x(layout, editor.state.playhead)
  if (x < layout.left || x > layout.width) return
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

/** A scroll bar while only a part of the time is shown. */
export function drawNavigator(editor, context, colours, layout) {
  if (!editor.state.view) return
  const { left, right, height, start, seconds, whole } = layout
  const y = height - NAVIGATOR, width = right - left
  context.fillStyle = colours.back
  context.globalAlpha = 0.8
  context.fillRect(left, y, width, NAVIGATOR)
  context.fillStyle = colours.text
  context.globalAlpha = 0.12
  context.fillRect(left, y + 2, width, NAVIGATOR - 4)
  context.globalAlpha = 0.5
  context.fillRect(left + (start / whole) * width, y + 2, Math.max(8, (seconds / whole) * width), NAVIGATOR - 4)
  context.globalAlpha = 1
}
