// Mouse, pen and touch on an editor's canvas. A drag is a gesture, {move(point, event), end(point), box(), edits}, all but
// `move` optional. It changes the editor's state; the text is written when the pointer goes up. edits: false for one that
// changes no keyframes, which is allowed for a text that is not ours.

import { timeActionAt, timeGesture } from "./gestures.js"
import { clamp, nearest, snap } from "./keyframes.js"
import { GAP } from "./ruler.js"
import { LANE_PADDING } from "./timeline.js"
import { scrolled, zoomed } from "./view.js"

const HIT_RADIUS = 9 // pixels around a keyframe
const CLICK_RADIUS = 3 // pixels that the pointer may move in a click
const FINE = 0.2 // speed of a drag while Shift is held
const ZOOM = 1.0025 // per pixel of the wheel
const CURSORS = { playhead: "ew-resize", loop: "col-resize", first: "w-resize", last: "e-resize", shift: "grab" }

const distance = (a, b) => Math.hypot(b.x - a.x, b.y - a.y)

/** The pointer's position in pixels of the canvas, at any zoom of the graph. */
export function positionOf(event, canvas) {
  const box = canvas.getBoundingClientRect()
  const zoom = box.width / canvas.clientWidth || 1
  return { x: (event.clientX - box.left) / zoom, y: (event.clientY - box.top) / zoom }
}

export const speed = (event) => (event.shiftKey ? FINE : 1)

export function onPointerDown(editor, event) {
  const { canvas, state } = editor
  if (event.button !== 0) return
  canvas.focus({ preventScroll: true })
  const canEdit = state.canEdit()
  if (state.drag || state.error) return
  const start = positionOf(event, canvas)
  const gesture = gestureAt(editor, editor.layout(), start, event)
  if (!gesture || (!canEdit && gesture.edits !== false)) return editor.redraw()
  editor.setPlaying(false)
  canvas.setPointerCapture(event.pointerId)
  state.startDrag()
  editor.gesture = { ...gesture, pointer: event.pointerId }
  gesture.move(start, event)
  editor.redraw()
}

export function onPointerMove(editor, event) {
  const { gesture } = editor
  const point = positionOf(event, editor.canvas)
  if (gesture) {
    if (gesture.pointer !== event.pointerId) return // for example a palm while the pen draws
    gesture.move(point, event)
    editor.redraw()
  } else if (!editor.state.error) {
    editor.canvas.style.cursor = cursorAt(editor, point, event)
  }
}

/** Alt zooms in time and, with Shift, scrolls; over the ruler without Alt. True if the wheel was ours, not the graph's. */
export function onWheel(editor, event) {
  const { state } = editor
  const layout = editor.layout(), point = positionOf(event, editor.canvas)
  const overRuler = timeActionAt(editor, layout, point) && point.x >= layout.left
  if (state.error || state.drag || event.ctrlKey || event.metaKey || !(event.altKey || overRuler)) return false
  const delta = event.deltaY || event.deltaX // some systems turn the wheel sideways while Shift is held
  if (event.shiftKey) state.view = scrolled(state.view, layout.whole, delta * layout.secondsPerPixel)
  else state.view = zoomed(state.view, layout.whole, editor.timeAt(layout, point.x), ZOOM ** delta)
  editor.redraw()
  return true
}

export function onPointerUp(editor, event) {
  if (editor.gesture?.pointer !== event.pointerId) return
  editor.gesture.end?.(positionOf(event, editor.canvas))
  editor.gesture = null
  editor.state.endDrag()
  editor.redraw()
}

/** Adds a keyframe, unless there already is one. */
export function onDoubleClick(editor, event) {
  const { state } = editor
  const point = positionOf(event, editor.canvas)
  const layout = editor.layout()
  const name = editor.laneAt(layout, point.y)
  if (point.x < layout.left || !name || !state.canEdit()) return
  if (keyframeAt(editor, layout, point)) return
  state.active = name
  state.setPlayhead(editor.timeAt(layout, point.x))
  state.setValue(name, editor.valueAtY(layout, name, point.y))
}

export const keyframeAt = (editor, layout, { x, y }) => nearest(editor.points(layout), x, y, HIT_RADIUS)

function cursorAt(editor, point, event) {
  const layout = editor.layout()
  if (point.x < layout.side + GAP / 2) return editor.gizmoCursor(layout, point)
  if (point.x < layout.left) return "pointer"
  const action = timeActionAt(editor, layout, point, event)
  if (action) return CURSORS[action] ?? "default"
  return keyframeAt(editor, layout, point) ? "grab" : "crosshair"
}

/** The gesture that starts at this point, or null. */
function gestureAt(editor, layout, start, event) {
  const { state } = editor
  if (start.x < layout.side + GAP / 2) return editor.grabGizmo(layout, start)
  const time = start.x < layout.left ? null : timeGesture(editor, layout, start, event)
  if (time) return time
  const name = editor.laneAt(layout, start.y)
  if (name) state.active = name
  if (start.x < layout.left || !name) return null
  const hit = keyframeAt(editor, layout, start)
  return hit ? dragKeyframes(state, layout, start, hit, event) : dragBox(editor, layout, start, event)
}

function dragKeyframes(state, layout, start, { name, keyframe }, event) {
  state.active = name
  if (event.shiftKey && state.selected.has(keyframe)) state.selected.delete(keyframe)
  else if (event.shiftKey) state.selected.add(keyframe)
  else if (!state.selected.has(keyframe)) state.selected = new Set([keyframe])
  const { curves, selected } = state
  if (!selected.has(keyframe)) return null
  let dragging = false
  state.playhead = keyframe[0]
  return {
    move: (point, event) => {
      dragging ||= distance(start, point) > CLICK_RADIUS
      if (!dragging) return
      const time = keyframe[0] + (point.x - start.x) * speed(event) * layout.secondsPerPixel
      const target = clamp(event.altKey ? time : snap(time), 0, layout.whole)
      const share = ((start.y - point.y) * speed(event)) / (layout.lane - 2 * LANE_PADDING)
      const changes = {}
      for (const other of state.names) {
        const [low, high] = state.range(other)
        changes[other] = share * (high - low)
      }
      Object.assign(state, state.moved(target - keyframe[0], changes, { curves, selected }))
      state.playhead = target
    },
  }
}

/** Draws a box that selects the keyframes in it; a click moves the playhead instead. */
function dragBox(editor, layout, start, event) {
  const { state } = editor
  const selectedBefore = event.shiftKey ? [...state.selected] : []
  let box = null
  return {
    edits: false,
    box: () => box,
    move: (point) => {
      if (!box && distance(start, point) <= CLICK_RADIUS) return
      const left = Math.min(start.x, point.x), width = Math.abs(point.x - start.x)
      const top = Math.min(start.y, point.y), height = Math.abs(point.y - start.y)
      box = [left, top, width, height]
      const inside = editor
        .points(layout)
        .filter(({ x, y }) => x >= left && x <= left + width && y >= top && y <= top + height)
      state.select([...selectedBefore, ...inside.map(({ keyframe }) => keyframe)])
    },
    end: (point) => {
      if (box) return
      state.select(selectedBefore)
      state.setPlayhead(editor.timeAt(layout, point.x))
    },
  }
}

/** A gesture on a gizmo: `valuesAt(point, event)` returns the {channel: value} to set at the playhead. */
export function dragValues(state, valuesAt) {
  const { curves } = state
  const time = snap(state.playhead)
  return {
    move: (point, event) => {
      const values = valuesAt(point, event)
      const names = Object.keys(values)
      state.curves = names.reduce((curves, name) => state.withValue(curves, name, values[name]), curves)
      state.select(names.flatMap((name) => state.curves[name].filter(([t]) => t === time)))
      if (names.length && !names.includes(state.active)) state.active = names[0]
    },
  }
}
