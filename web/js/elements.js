// The page elements of an editor: toolbar, canvas and help sheet, styled in the colours of ComfyUI's theme.

import { addStyle } from "./canvas.js"
import { HELP } from "./help.js"
import { text } from "./texts.js"

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
.imtalker-editor select { min-width: 0; flex: 0 1 104px; padding: 0 2px; }
.imtalker-editor input[type=number] { width: 60px; flex: none; text-align: right; padding: 0 0 0 4px; }
.imtalker-editor input.length { width: 50px; }
.imtalker-editor input[type=range] { width: 54px; min-width: 30px; flex: 0 1 54px; padding: 0; border: 0;
  background: none; accent-color: var(--p-primary-color, currentColor); }
.imtalker-editor .time { font-variant-numeric: tabular-nums; min-width: 84px; text-align: center; cursor: pointer; }
.imtalker-editor .grow { flex: 1 1 0; }
.imtalker-editor .name { color: var(--descrip-text); overflow: hidden; text-overflow: ellipsis; min-width: 0; }
.imtalker-editor .help { position: absolute; inset: 38px 6px 6px; padding: 10px 12px; overflow: auto; border-radius: 4px;
  background: var(--comfy-menu-bg); border: 1px solid var(--border-color); line-height: 1.6; }
.imtalker-editor .help[hidden] { display: none; }
.imtalker-editor .help dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 14px; margin: 0; }
.imtalker-editor .help dd { margin: 0; color: var(--descrip-text); }
`

const ICONS = {
  play: '<path d="M3 2v10l9-5z"/>',
  pause: '<path d="M3 2h3v10H3zM8 2h3v10H8z"/>',
  add: '<path d="M7 1l6 6-6 6-6-6z"/>',
  remove: '<path d="M3 5h8l-.7 8H3.7zM2 3h3l.6-1.5h2.8L9 3h3v1H2z"/>',
  smooth: '<path d="M1.500 11.500C7 11.500 7 2.500 12.500 2.500" fill="none" stroke="currentColor" stroke-width="1.600"/>',
  linear: '<path d="M1.500 11.500L12.500 2.500" fill="none" stroke="currentColor" stroke-width="1.600"/>',
  hold: '<path d="M1.500 11.500H10V2.500H12.500" fill="none" stroke="currentColor" stroke-width="1.600"/>',
  all: '<path d="M1 3h1.500v8H1zM11.500 3H13v8h-1.500zM4 6.300h6v1.400H4zM6 4L3.200 7 6 10zM8 4l2.800 3L8 10z"/>',
  help: '<path d="M5.9 9.3h1.8v-.5c0-.7.4-1 1-1.500C9.600 6.700 10.400 6 10.400 4.600 10.400 2.700 9 1.500 7 1.500 4.900 1.500 3.600 2.800 3.500 4.800h1.900c0-1 .6-1.700 1.600-1.700.9 0 1.500.6 1.500 1.500 0 .7-.4 1.100-1 1.600C6.500 6.900 5.900 7.500 5.900 8.800zM5.800 10.500h2v2h-2z"/>',
}

function make(kind, properties = {}, ...children) {
  const element = Object.assign(document.createElement(kind), properties)
  element.append(...children)
  return element
}

/**
 * Builds the elements of an editor: {root, canvas, play, time, easing, name, number, preset, length, amount, help}.
 * actions: what the toolbar's buttons call, {play, frames, add, remove, easing, all}.
 */
export function buildElements({ channels, presets }, actions) {
  addStyle("imtalker-editor", STYLE)
  const labels = Object.values(channels).map(({ label }) => text(label))
  const canvas = make("canvas", { tabIndex: 0 })
  canvas.setAttribute("role", "application")
  canvas.setAttribute("aria-label", `${text("Keyframes")}: ${labels.join(", ")}`)
  const button = (icon, title, action) => {
    const element = make("button", { type: "button", title: text(title) })
    setIcon(element, icon)
    element.addEventListener("click", () => {
      action()
      ;(help.hidden ? canvas : help).focus({ preventScroll: true })
    })
    return element
  }
  const play = button("play", "Play (Space)", actions.play)
  const time = make("span", { className: "time", title: text("Ruler in seconds or frames (T)") })
  time.addEventListener("click", actions.frames)
  const name = make("span", { className: "name" })
  const number = make("input", { type: "number", title: text("Channel value at the playhead") })
  const easing = button("smooth", "How the value goes to the next keyframe: smooth, linear, hold (1 2 3)", actions.easing)
  const preset = make("select", { title: text("Insert a movement at the playhead") }, new Option(text("Preset…"), ""))
  for (const [key, { label }] of Object.entries(presets)) preset.append(new Option(text(label), key))
  const length = make("input", { type: "number", className: "length", min: 0.1, step: 0.1, placeholder: text("s") })
  length.title = text("Length of the preset in seconds; empty: its own")
  const amount = make("input", { type: "range", min: 0.1, max: 2, step: 0.05, value: 1, title: text("Size of the preset") })
  const rows = HELP.flatMap(([key, what]) => [
    make("dt", { textContent: text(key) }),
    make("dd", { textContent: text(what) }),
  ])
  const help = make("div", { className: "help", hidden: true, tabIndex: 0 }, make("dl", {}, ...rows))
  help.dataset.captureWheel = true // Nodes 2.0 then leaves the wheel to it
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
    easing,
    preset,
    length,
    amount,
    button("all", "Show all of the time (F)", actions.all),
    button("help", "Mouse and keys", () => (help.hidden = !help.hidden)),
  )
  const root = make("div", { className: "imtalker-editor" }, toolbar, canvas, help)
  return { root, canvas, play, time, easing, name, number, preset, length, amount, help }
}

export function setIcon(button, icon) {
  if (button.dataset.icon === icon) return
  button.dataset.icon = icon
  button.innerHTML = `<svg width="14" height="14" viewBox="0 0 14 14" fill="currentColor">${ICONS[icon]}</svg>`
}
