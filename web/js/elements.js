// The page elements of an editor: toolbar, canvas and help sheet, styled in the colours of ComfyUI's theme.

import { addStyle } from "./canvas.js"

const STYLE = `
.imtalker-editor { display: flex; flex-direction: column; gap: 6px; width: 100%; height: 100%; min-height: 0;
  box-sizing: border-box; padding: 6px; border-radius: 6px; position: relative; overflow: hidden; user-select: none;
  font: 12px/1.2 Inter, Arial, sans-serif; color: var(--input-text); background-color: var(--comfy-input-bg);
  outline-color: var(--border-color); border: 1px solid var(--border-color); pointer-events: auto;
  transition: color 1ms, background-color 1ms; }
.imtalker-editor canvas { flex: 1 1 0; min-height: 0; width: 100%; display: block; outline: none; touch-action: none; }
.imtalker-editor .bar { display: flex; gap: 6px; align-items: center; flex: none; height: 24px; white-space: nowrap; }
.imtalker-editor button, .imtalker-editor select, .imtalker-editor input { font: inherit; color: inherit; height: 24px;
  box-sizing: border-box; margin: 0; border-radius: 4px; border: 1px solid var(--border-color);
  background: var(--comfy-menu-bg); padding: 0 6px; }
.imtalker-editor button { display: grid; place-items: center; width: 26px; padding: 0; cursor: pointer; flex: none; }
.imtalker-editor button:hover, .imtalker-editor select:hover { border-color: currentColor; }
.imtalker-editor :focus-visible { outline: 2px solid var(--p-primary-color, currentColor); outline-offset: -1px; }
.imtalker-editor canvas:focus-visible { outline: none; }
.imtalker-editor select { min-width: 0; flex: 0 1 118px; }
.imtalker-editor input[type=number] { width: 68px; flex: none; text-align: right; }
.imtalker-editor input[type=range] { width: 70px; min-width: 30px; flex: 0 1 70px; padding: 0; border: 0;
  background: none; accent-color: var(--p-primary-color, currentColor); }
.imtalker-editor .time { font-variant-numeric: tabular-nums; min-width: 52px; text-align: right; }
.imtalker-editor .grow { flex: 1 1 0; }
.imtalker-editor .name { color: var(--descrip-text); overflow: hidden; text-overflow: ellipsis; min-width: 0; }
.imtalker-editor .help { position: absolute; inset: 38px 6px 6px; padding: 10px 12px; overflow: auto; border-radius: 4px;
  background: var(--comfy-menu-bg); border: 1px solid var(--border-color); line-height: 1.6; }
.imtalker-editor .help[hidden] { display: none; }
.imtalker-editor .help dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 14px; margin: 0; }
.imtalker-editor .help dd { margin: 0; color: var(--descrip-text); }
`

export const ICONS = {
  play: '<path d="M3 2v10l9-5z"/>',
  pause: '<path d="M3 2h3v10H3zM8 2h3v10H8z"/>',
  add: '<path d="M7 1l6 6-6 6-6-6z"/>',
  remove: '<path d="M3 5h8l-.7 8H3.7zM2 3h3l.6-1.5h2.8L9 3h3v1H2z"/>',
  help: '<path d="M5.9 9.3h1.8v-.5c0-.7.4-1 1-1.500C9.600 6.700 10.400 6 10.400 4.600 10.400 2.700 9 1.500 7 1.500 4.900 1.500 3.600 2.800 3.500 4.800h1.900c0-1 .6-1.700 1.600-1.700.9 0 1.500.6 1.500 1.500 0 .7-.4 1.100-1 1.600C6.500 6.900 5.900 7.500 5.900 8.800zM5.800 10.500h2v2h-2z"/>',
}

const HELP = [
  ["Drag a keyframe", "move it (Shift: fine, Alt: no snapping)"],
  ["Double click", "add a keyframe"],
  ["Drag over empty space", "select keyframes (Shift: add to the selection)"],
  ["← →", "move the selected keyframes or the playhead by 1 frame (Shift: 10)"],
  ["↑ ↓ + −", "change the value by 1 step (Shift + arrow: 5)"],
  ["Page ↑ ↓, Home, End", "previous or next channel, go to the start or end"],
  ["Enter, Delete", "add a keyframe, remove the selected ones"],
  ["Ctrl C X V A", "copy, cut, paste at the playhead (as JSON text), select all"],
  ["Space, Esc", "play or pause, clear the selection"],
  ["Ctrl Z, Ctrl Y", "undo, redo (ComfyUI's own)"],
]

function make(kind, properties = {}, ...children) {
  const element = Object.assign(document.createElement(kind), properties)
  element.append(...children)
  return element
}

/**
 * Builds the elements of an editor: {root, canvas, play, time, name, number, preset, amount, help}.
 * actions: what the toolbar's buttons call, {play, add, remove}.
 */
export function buildElements({ channels, presets }, actions) {
  addStyle("imtalker-editor", STYLE)
  const labels = Object.values(channels).map(({ label }) => label)
  const canvas = make("canvas", { tabIndex: 0 })
  canvas.setAttribute("role", "application")
  canvas.setAttribute("aria-label", `Keyframes of ${labels.join(", ")}`)
  const button = (icon, title, action) => {
    const element = make("button", { type: "button", title })
    element.innerHTML = `<svg width="14" height="14" viewBox="0 0 14 14" fill="currentColor">${ICONS[icon]}</svg>`
    element.addEventListener("click", () => (action(), canvas.focus()))
    return element
  }
  const play = button("play", "Play (Space)", actions.play)
  const time = make("span", { className: "time" })
  const name = make("span", { className: "name" })
  const number = make("input", { type: "number", title: "Channel value at the playhead" })
  const preset = make("select", { title: "Fill the whole time with a movement" }, new Option("Preset…", ""))
  for (const [key, { label }] of Object.entries(presets)) preset.append(new Option(label, key))
  const amount = make("input", { type: "range", min: 0.1, max: 2, step: 0.05, value: 1, title: "Size of the preset" })
  const rows = HELP.flatMap(([key, text]) => [make("dt", { textContent: key }), make("dd", { textContent: text })])
  const help = make("div", { className: "help", hidden: true }, make("dl", {}, ...rows))
  const toolbar = make(
    "div",
    { className: "bar" },
    play,
    time,
    make("span", { className: "grow" }),
    name,
    number,
    button("add", "Add a keyframe at the playhead (Enter)", actions.add),
    button("remove", "Remove the selected keyframes, or all of this channel if none is selected", actions.remove),
    preset,
    amount,
    button("help", "Mouse and keys", () => (help.hidden = !help.hidden)),
  )
  const root = make("div", { className: "imtalker-editor" }, toolbar, canvas, help)
  return { root, canvas, play, time, name, number, preset, amount, help }
}
