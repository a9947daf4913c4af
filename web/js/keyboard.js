// Keys and clipboard of an editor's canvas.

import { copy, paste } from "./clipboard.js"
import { onContextMenu } from "./commands.js"
import { EASINGS, FPS, span } from "./keyframes.js"
import { scrolled, zoomed } from "./view.js"

const ZOOM = 1.5 // per press
const SCROLL = 0.25 // of what is shown, per press

export function onKeyDown(editor, event) {
  const ctrl = event.ctrlKey || event.metaKey
  const name = ctrl ? event.key.toLowerCase() : event.key
  const { state } = editor
  const isMenu = name === "ContextMenu" || (event.shiftKey && name === "F10")
  const edit = (ctrl ? {} : editingKeys(editor, event.shiftKey))[name]
  const action = edit ?? (ctrl ? ctrlKeys(editor) : plainKeys(editor, event.shiftKey))[name]
  if (event.altKey || !(action || isMenu)) {
    // leave other keys to ComfyUI, except copy and paste: those arrive as clipboard events
    if (ctrl && ["c", "x", "v"].includes(name)) event.stopPropagation()
    return
  }
  event.preventDefault()
  event.stopPropagation()
  if (isMenu) return onContextMenu(editor, event)
  const canEdit = state.canEdit()
  if (state.drag || state.error || (edit && !canEdit)) return
  action()
  editor.redraw()
}

function ctrlKeys({ state }) {
  const whole = state.shownSeconds()
  const shown = state.view?.seconds ?? whole
  const zoom = (factor) => (state.view = zoomed(state.view, whole, state.playhead, factor))
  const scroll = (share) => (state.view = scrolled(state.view, whole, share * shown))
  return {
    a: () => state.select(Object.values(state.curves).flat()),
    arrowup: () => zoom(1 / ZOOM),
    arrowdown: () => zoom(ZOOM),
    arrowleft: () => scroll(-SCROLL),
    arrowright: () => scroll(SCROLL),
  }
}

/** Keys that change keyframes. */
function editingKeys(editor, shift) {
  const { state } = editor
  const seconds = (shift ? 10 : 1) / FPS, steps = shift ? 5 : 1
  const stretch = (frames) => {
    const [first, last] = span(state.selected)
    if (last - first + frames / FPS > 0.5 / FPS) state.stretch((last - first + frames / FPS) / (last - first))
  }
  const easings = EASINGS.map((easing, index) => [`${index + 1}`, () => state.setEasing(easing)])
  const moves = { ArrowLeft: () => state.moveInTime(-seconds), ArrowRight: () => state.moveInTime(seconds) }
  return {
    ...Object.fromEntries(easings),
    ...(state.selected.size ? moves : {}), // or else they move the playhead
    ArrowUp: () => state.changeValue(steps),
    ArrowDown: () => state.changeValue(-steps),
    "+": () => state.changeValue(1),
    "=": () => state.changeValue(1),
    "-": () => state.changeValue(-1),
    "<": () => state.selected.size > 1 && stretch(-1),
    ">": () => state.selected.size > 1 && stretch(1),
    Delete: () => state.remove(),
    Backspace: () => state.remove(),
    Enter: () => state.setValue(state.active),
  }
}

function plainKeys(editor, shift) {
  const { state } = editor
  const seconds = (shift ? 10 : 1) / FPS
  const jump = (time) => {
    state.select([])
    state.setPlayhead(time)
  }
  return {
    ArrowLeft: () => state.moveInTime(-seconds),
    ArrowRight: () => state.moveInTime(seconds),
    PageUp: () => state.changeChannel(-1),
    PageDown: () => state.changeChannel(1),
    Home: () => jump(0),
    End: () => jump(state.duration()),
    ",": () => state.jump(-1),
    ".": () => state.jump(1),
    f: () => (state.view = null),
    F: () => editor.showSelection(),
    "[": () => state.setLoop(0),
    "]": () => state.setLoop(1),
    l: () => (state.loop = null),
    t: () => editor.toggleFrames(),
    s: () => editor.toggleSound(),
    Escape: () => {
      state.select([])
      editor.elements.help.hidden = true
    },
    " ": () => editor.setPlaying(!editor.playing),
  }
}

export function onClipboard(editor, event) {
  const { state } = editor
  event.preventDefault()
  event.stopPropagation()
  const canEdit = state.canEdit()
  if (event.type === "paste") {
    if (canEdit) paste(editor, event.clipboardData.getData("text/plain"))
  } else if (state.selected.size) {
    event.clipboardData.setData("text/plain", copy(editor))
    if (event.type === "cut" && canEdit) state.remove()
  }
}
