// Drags in the ruler: playhead, loop, the bar of the selection, and the scroll bar. Each is a gesture as in pointer.js.

import { clamp, snap, stretched } from "./keyframes.js"
import { BAR_TOP, NAVIGATOR, RULER, selectionBar } from "./ruler.js"
import { scrolled } from "./view.js"

const GRIP = 6 // pixels around an end of the selection's bar
const LEAST = 1 / 25 // seconds between the ends of a stretched selection

/** What a drag from here does to time: "loop", "first", "last", "shift", "playhead", "scroll", or null. */
export function timeActionAt(editor, layout, { x, y }, event) {
  if (editor.state.view && y >= layout.height - NAVIGATOR) return "scroll"
  if (y >= RULER) return null
  if (event?.shiftKey) return "loop"
  const bar = selectionBar(editor, layout)
  if (bar && y >= BAR_TOP) {
    if (Math.abs(x - bar.x1) <= GRIP) return "last"
    if (Math.abs(x - bar.x0) <= GRIP) return "first"
    if (x > bar.x0 && x < bar.x1) return "shift"
  }
  return "playhead"
}

export function timeGesture(editor, layout, start, event) {
  const { state } = editor
  const action = timeActionAt(editor, layout, start, event)
  if (!action) return null
  const timeAt = (point) => clamp(snap(editor.timeAt(layout, point.x)), 0, layout.whole)
  const before = { curves: state.curves, selected: state.selected }
  const { first, last } = selectionBar(editor, layout) ?? {}
  const [fixed, held] = action === "last" ? [first, last] : [last, first]
  const view = state.view, from = timeAt(start)
  const stretch = (point, event) => {
    const time = event.altKey ? clamp(editor.timeAt(layout, point.x), 0, layout.whole) : timeAt(point)
    const target = held > fixed ? Math.max(time, fixed + LEAST) : Math.min(time, fixed - LEAST)
    Object.assign(state, stretched(before.curves, before.selected, fixed, (target - fixed) / (held - fixed)))
  }
  const moves = {
    playhead: (point) => state.setPlayhead(editor.timeAt(layout, point.x)),
    loop: (point) => {
      const ends = [from, timeAt(point)].sort((a, b) => a - b)
      state.loop = ends[1] > ends[0] ? ends : null
    },
    first: stretch,
    last: stretch,
    shift: (point) => {
      const seconds = clamp(timeAt(point) - from, -first, layout.whole - last)
      Object.assign(state, state.moved(seconds, {}, before))
    },
    scroll: (point) => {
      const share = (point.x - start.x) / (layout.right - layout.left)
      state.view = scrolled(view, layout.whole, share * layout.whole)
    },
  }
  return { move: moves[action], edits: ["first", "last", "shift"].includes(action) }
}
