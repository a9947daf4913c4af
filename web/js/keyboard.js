// Keys and clipboard of an editor's canvas.

import * as k from "./keyframes.js"

export function key(editor, event) {
  const ctrl = event.ctrlKey || event.metaKey
  const name = ctrl ? event.key.toLowerCase() : event.key
  const act = (ctrl ? withCtrl : alone)(editor, event.shiftKey)[name]
  if (!act || event.altKey) {
    // ComfyUI's own keys pass, but for copy and paste, which come as events of their own
    if (ctrl && ["c", "x", "v"].includes(name)) event.stopPropagation()
    return
  }
  event.preventDefault()
  event.stopPropagation()
  if (!editor.state.usable()) return
  act()
  editor.redraw()
}

const withCtrl = ({ state }) => ({
  a: () => state.select(Object.values(state.curves).flat()),
})

function alone(editor, shift) {
  const { state } = editor
  const seconds = (shift ? 10 : 1) / k.FPS
  const steps = shift ? 5 : 1
  const jump = (time) => {
    state.select([])
    state.setPlayhead(time)
  }
  return {
    ArrowLeft: () => state.shift(-seconds),
    ArrowRight: () => state.shift(seconds),
    ArrowUp: () => state.raise(steps),
    ArrowDown: () => state.raise(-steps),
    "+": () => state.raise(1),
    "=": () => state.raise(1),
    "-": () => state.raise(-1),
    PageUp: () => state.activate(-1),
    PageDown: () => state.activate(1),
    Home: () => jump(0),
    End: () => jump(state.duration()),
    Delete: () => state.remove(),
    Backspace: () => state.remove(),
    Enter: () => state.setValue(state.active),
    Escape: () => {
      state.select([])
      editor.parts.sheet.hidden = true
    },
    " ": () => editor.setPlaying(!editor.playing),
  }
}

export function clipboard({ state }, event) {
  event.preventDefault()
  event.stopPropagation()
  if (!state.usable()) return
  if (event.type === "paste") {
    try {
      state.paste(event.clipboardData.getData("text/plain"))
    } catch {
      return // something else was copied
    }
  } else if (state.selected.size) {
    event.clipboardData.setData("text/plain", k.clip(state.curves, state.selected))
    if (event.type === "cut") state.remove()
  }
}
