// Mouse, pen and finger on an editor's canvas. A drag is a gesture, {move(point, event), end(point), box()}, of which
// `end` and `box` may be missing; it changes the editor's state, which is written when the pointer goes up.

import * as k from "./keyframes.js"
import { GAP, RULER } from "./timeline.js"

const GRAB = 9 // pixels around a keyframe
const STILL = 3 // pixels that a hand moves in a click

const distance = (a, b) => Math.hypot(b.x - a.x, b.y - a.y)

/** Where the pointer is, in the canvas's own pixels, whatever the graph's zoom. */
function place(canvas, event) {
  const box = canvas.getBoundingClientRect()
  const zoom = box.width / canvas.clientWidth || 1
  return { x: (event.clientX - box.left) / zoom, y: (event.clientY - box.top) / zoom }
}

export function grab(editor, event) {
  const { canvas, state } = editor
  if (event.button !== 0) return
  canvas.focus({ preventScroll: true })
  if (!state.usable()) return
  const start = place(canvas, event)
  const gesture = gestureAt(editor, editor.layout(), start, event)
  if (!gesture) return editor.redraw()
  editor.setPlaying(false)
  canvas.setPointerCapture(event.pointerId)
  state.hold()
  editor.gesture = { ...gesture, pointer: event.pointerId }
  gesture.move(start, event)
  editor.redraw()
}

export function move(editor, event) {
  const { gesture } = editor
  const point = place(editor.canvas, event)
  if (gesture) {
    if (gesture.pointer !== event.pointerId) return // a palm, say, while the pen draws
    gesture.move(point, event)
    editor.redraw()
  } else if (!editor.state.error) {
    editor.canvas.style.cursor = cursorAt(editor, point)
  }
}

export function release(editor, event) {
  if (editor.gesture?.pointer !== event.pointerId) return
  editor.gesture.end?.(place(editor.canvas, event))
  editor.gesture = null
  editor.state.letGo()
  editor.redraw()
}

/** Adds a keyframe where there is none. */
export function add(editor, event) {
  const { state } = editor
  const point = place(editor.canvas, event)
  const layout = editor.layout()
  const name = editor.laneAt(layout, point.y)
  if (point.x < layout.left || !name || !state.usable()) return
  if (k.nearest(editor.points(layout), point.x, point.y, GRAB)) return
  state.active = name
  state.setPlayhead(editor.timeAt(layout, point.x))
  state.setValue(name, editor.valueOf(layout, name, point.y))
}

function cursorAt(editor, point) {
  const layout = editor.layout()
  if (point.x < layout.side + GAP / 2) return editor.gizmoCursor(layout, point)
  if (point.x < layout.left) return "pointer"
  if (point.y < RULER) return "ew-resize"
  return k.nearest(editor.points(layout), point.x, point.y, GRAB) ? "grab" : "crosshair"
}

// The gestures

/** What begins there, or null. */
function gestureAt(editor, layout, start, event) {
  const { state } = editor
  if (start.x < layout.side + GAP / 2) return editor.grabGizmo(layout, start)
  const name = editor.laneAt(layout, start.y)
  if (name) state.active = name
  if (start.x < layout.left) return null
  if (!name) return { move: (point) => state.setPlayhead(editor.timeAt(layout, point.x)) }
  const hit = k.nearest(editor.points(layout), start.x, start.y, GRAB)
  return hit ? dragKeyframes(state, layout, start, hit, event) : band(editor, layout, start, event)
}

function dragKeyframes(state, layout, start, { name, keyframe }, event) {
  state.active = name
  if (event.shiftKey && state.selected.has(keyframe)) state.selected.delete(keyframe)
  else if (event.shiftKey) state.selected.add(keyframe)
  else if (!state.selected.has(keyframe)) state.selected = new Set([keyframe])
  const { curves, selected } = state
  if (!selected.has(keyframe)) return null
  let moving = false
  state.playhead = keyframe[0]
  return {
    move: (point, { shiftKey, altKey }) => {
      moving ||= distance(start, point) > STILL
      if (!moving) return
      const slow = shiftKey ? 0.2 : 1
      const time = keyframe[0] + ((point.x - start.x) * slow * layout.seconds) / (layout.right - layout.left - 6)
      const target = k.clamp(altKey ? time : k.snap(time), 0, layout.seconds)
      const share = ((start.y - point.y) * slow) / (layout.lane - 12)
      const changes = {}
      for (const other of state.names) {
        const [least, most] = k.range(state.channels[other], state.more())
        changes[other] = share * (most - least)
      }
      Object.assign(state, k.moved(curves, selected, target - keyframe[0], changes, state.channels, state.more()))
      state.playhead = k.clamp(target, 0, layout.seconds)
    },
  }
}

/** Selects what lies in a box; where none is drawn, moves the playhead. */
function band(editor, layout, start, event) {
  const { state } = editor
  const kept = event.shiftKey ? [...state.selected] : []
  let box = null
  return {
    box: () => box,
    move: (point) => {
      if (!box && distance(start, point) <= STILL) return
      const left = Math.min(start.x, point.x), width = Math.abs(point.x - start.x)
      const top = Math.min(start.y, point.y), height = Math.abs(point.y - start.y)
      box = [left, top, width, height]
      const inside = editor
        .points(layout)
        .filter(({ x, y }) => x >= left && x <= left + width && y >= top && y <= top + height)
      state.select([...kept, ...inside.map(({ keyframe }) => keyframe)])
    },
    end: (point) => {
      if (box) return
      state.select(kept)
      state.setPlayhead(editor.timeAt(layout, point.x))
    },
  }
}

/** A drag of a gizmo: `values(point, event)` gives {channel: value} for the playhead. */
export function dragValues(state, values) {
  const { curves } = state
  const at = k.snap(state.playhead)
  return {
    move: (point, event) => {
      const chosen = values(point, event)
      const names = Object.keys(chosen)
      state.curves = names.reduce((found, name) => state.withValue(found, name, chosen[name]), curves)
      state.select(names.flatMap((name) => state.curves[name].filter(([time]) => time === at)))
      if (names.length && !names.includes(state.active)) state.active = names[0]
    },
  }
}
