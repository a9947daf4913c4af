// An editor's context menu.

import { copy, hasCopied, paste } from "./clipboard.js"
import { EASINGS } from "./keyframes.js"
import { openMenu } from "./menu.js"
import { keyframeAt, positionOf } from "./pointer.js"
import { text } from "./texts.js"

const STRETCHES = [["Half as long", 0.5], ["Twice as long", 2]]
const SIZES = [["Weaker", 0.8], ["Stronger", 1.25], ["Mirror", -1]]
export const EASING_LABELS = { smooth: "Smooth", linear: "Linear", hold: "Hold" }

export function onContextMenu(editor, event) {
  event.preventDefault()
  event.stopPropagation()
  const { state, canvas } = editor
  state.sync()
  if (state.drag || state.error) return
  const layout = editor.layout(), box = canvas.getBoundingClientRect()
  const byKey = event.button !== 2 && event.pointerType !== "touch"
  const zoom = box.width / canvas.clientWidth || 1
  const middle = { x: box.left + editor.x(layout, state.playhead) * zoom, y: box.top + 30 * zoom }
  if (!byKey) choose(editor, layout, positionOf(event, canvas))
  const at = byKey ? middle : { x: event.clientX, y: event.clientY }
  editor.redraw()
  editor.closeMenu = openMenu(itemsOf(editor), at, () => canvas.focus({ preventScroll: true }))
}

/** What a right click is about: the keyframe there, or the lane and the time. */
function choose(editor, layout, point) {
  const { state } = editor
  if (point.x < layout.left) return
  const hit = keyframeAt(editor, layout, point)
  const name = hit?.name ?? editor.laneAt(layout, point.y)
  if (name) state.active = name
  if (hit && !state.selected.has(hit.keyframe)) state.select([hit.keyframe])
  if (hit || state.selected.size < 2) state.setPlayhead(hit ? hit.keyframe[0] : editor.timeAt(layout, point.x))
  if (!hit && state.selected.size < 2) state.select([])
}

function itemsOf(editor) {
  const { state } = editor
  const locked = !state.canEdit(), none = locked || !state.selected.size
  const item = (label, action, more = {}) => ({ label: text(label), action: () => (action(), editor.redraw()), ...more })
  const easing = state.easing()
  return [
    ...EASINGS.map((one, index) =>
      item(EASING_LABELS[one], () => state.setEasing(one), {
        key: `${index + 1}`, checked: easing === one, disabled: locked || !state.chosen().size,
      }),
    ),
    null,
    item("Add a keyframe", () => state.setValue(state.active), { key: "Enter", disabled: locked }),
    item("Delete", () => state.remove(), { key: "Del", disabled: none }),
    item("Copy", () => copy(editor), { key: "Ctrl C", disabled: !state.selected.size }),
    item("Paste", () => paste(editor), { key: "Ctrl V", disabled: locked || !hasCopied() }),
    item("Select all", () => state.select(Object.values(state.curves).flat()), { key: "Ctrl A" }),
    null,
    ...STRETCHES.map(([label, factor]) =>
      item(label, () => state.stretch(factor), { disabled: none || state.selected.size < 2 }),
    ),
    ...SIZES.map(([label, factor]) => item(label, () => state.amplify(factor), { disabled: none })),
    null,
    item("Loop starts here", () => state.setLoop(0), { key: "[" }),
    item("Loop ends here", () => state.setLoop(1), { key: "]" }),
    item("No loop", () => (state.loop = null), { key: "L", disabled: !state.loop }),
    null,
    item("Show all", () => (state.view = null), { key: "F", disabled: !state.view }),
    item("Show the selection", () => editor.showSelection(), { key: "Shift F", disabled: !state.selected.size }),
    item("Ruler in frames", () => editor.toggleFrames(), { key: "T", checked: state.frames }),
    item("Sound", () => editor.toggleSound(), { key: "S", checked: !editor.muted, disabled: !editor.sound.file }),
    ...editor.ownItems(item),
    null,
    { heading: text("Presets at the playhead") },
    ...Object.entries(state.presets).map(([name, { label }]) =>
      item(label, () => editor.applyPreset(name), { disabled: locked }),
    ),
  ]
}
