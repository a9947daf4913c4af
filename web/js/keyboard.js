// Keys and clipboard of an editor's canvas.

import { copied, FPS } from "./keyframes.js"

export function onKeyDown(editor, event) {
  const ctrl = event.ctrlKey || event.metaKey
  const name = ctrl ? event.key.toLowerCase() : event.key
  const action = (ctrl ? ctrlKeys(editor) : plainKeys(editor, event.shiftKey))[name]
  if (!action || event.altKey) {
    // leave other keys to ComfyUI, except copy and paste: those arrive as clipboard events
    if (ctrl && ["c", "x", "v"].includes(name)) event.stopPropagation()
    return
  }
  event.preventDefault()
  event.stopPropagation()
  if (!editor.state.canEdit()) return
  action()
  editor.redraw()
}

const ctrlKeys = ({ state }) => ({
  a: () => state.select(Object.values(state.curves).flat()),
})

function plainKeys(editor, shift) {
  const { state } = editor
  const seconds = (shift ? 10 : 1) / FPS
  const steps = shift ? 5 : 1
  const jump = (time) => {
    state.select([])
    state.setPlayhead(time)
  }
  return {
    ArrowLeft: () => state.moveInTime(-seconds),
    ArrowRight: () => state.moveInTime(seconds),
    ArrowUp: () => state.changeValue(steps),
    ArrowDown: () => state.changeValue(-steps),
    "+": () => state.changeValue(1),
    "=": () => state.changeValue(1),
    "-": () => state.changeValue(-1),
    PageUp: () => state.changeChannel(-1),
    PageDown: () => state.changeChannel(1),
    Home: () => jump(0),
    End: () => jump(state.duration()),
    Delete: () => state.remove(),
    Backspace: () => state.remove(),
    Enter: () => state.setValue(state.active),
    Escape: () => {
      state.select([])
      editor.elements.help.hidden = true
    },
    " ": () => editor.setPlaying(!editor.playing),
  }
}

export function onClipboard({ state }, event) {
  event.preventDefault()
  event.stopPropagation()
  if (!state.canEdit()) return
  if (event.type === "paste") {
    try {
      state.paste(event.clipboardData.getData("text/plain"))
    } catch {
      return // the clipboard holds something else
    }
  } else if (state.selected.size) {
    event.clipboardData.setData("text/plain", copied(state.curves, state.selected))
    if (event.type === "cut") state.remove()
  }
}
