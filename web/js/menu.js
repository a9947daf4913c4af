// A context menu at a point of the page. Items: {label, action, checked, disabled}, {heading}, or null for a line.

import { addStyle } from "./canvas.js"

const STYLE = `
.imtalker-menu { position: fixed; z-index: 10000; padding: 4px; border-radius: 6px; max-height: 90vh; overflow: auto;
  font: 12px/1 Inter, Arial, sans-serif; color: var(--input-text); background: var(--comfy-menu-bg);
  border: 1px solid var(--border-color); box-shadow: 0 4px 16px #0006; }
.imtalker-menu button { display: flex; width: 100%; gap: 24px; align-items: center; font: inherit; color: inherit;
  padding: 5px 10px 5px 22px; border: 0; border-radius: 4px; background: none; text-align: left; position: relative; }
.imtalker-menu button:focus { background: var(--comfy-input-bg); outline: none; }
.imtalker-menu button:disabled { opacity: 0.4; }
.imtalker-menu button[aria-checked=true]::before { content: "✓"; position: absolute; left: 7px; }
.imtalker-menu kbd { margin-left: auto; font: inherit; color: var(--descrip-text); }
.imtalker-menu h6 { font: inherit; color: var(--descrip-text); margin: 4px 10px; }
.imtalker-menu hr { border: 0; border-top: 1px solid var(--border-color); margin: 4px 0; }
`
let closeOpen = null // closes the menu that is open

/** Opens it at clientX, clientY and closes any other; `onClose()` is called before an action, and without one. */
export function openMenu(items, { x, y }, onClose) {
  addStyle("imtalker-menu", STYLE)
  closeOpen?.()
  const menu = document.createElement("div")
  menu.className = "imtalker-menu"
  menu.setAttribute("role", "menu")
  const closing = new AbortController()
  const close = () => {
    if (closing.signal.aborted) return
    closing.abort()
    menu.remove()
    closeOpen = null
    onClose()
  }
  menu.append(...items.map((item) => element(item, close)))
  document.body.append(menu)
  const { width, height } = menu.getBoundingClientRect()
  menu.style.left = `${Math.max(0, Math.min(x, innerWidth - width - 4))}px`
  menu.style.top = `${Math.max(0, Math.min(y, innerHeight - height - 4))}px`
  const buttons = [...menu.querySelectorAll("button:enabled")]
  const step = (count) => {
    const index = buttons.indexOf(document.activeElement) + count
    buttons[(index + buttons.length) % buttons.length]?.focus()
  }
  const keys = { ArrowDown: () => step(1), ArrowUp: () => step(-1), Escape: close, Tab: close }
  const options = { signal: closing.signal }
  menu.addEventListener("keydown", (event) => {
    event.stopPropagation()
    if (!keys[event.key]) return
    event.preventDefault()
    keys[event.key]()
  })
  menu.addEventListener("pointermove", (event) => event.target.closest("button:enabled")?.focus())
  menu.addEventListener("contextmenu", (event) => event.preventDefault())
  const outside = (event) => menu.contains(event.target) || close()
  for (const name of ["pointerdown", "wheel"]) window.addEventListener(name, outside, { ...options, capture: true })
  window.addEventListener("blur", close, options)
  buttons[0]?.focus()
  closeOpen = close
  return close
}

function element(item, close) {
  if (!item) return document.createElement("hr")
  if (item.heading) return Object.assign(document.createElement("h6"), { textContent: item.heading })
  const button = Object.assign(document.createElement("button"), { type: "button", disabled: Boolean(item.disabled) })
  button.append(item.label)
  if (item.key) button.append(Object.assign(document.createElement("kbd"), { textContent: item.key }))
  button.setAttribute("role", item.checked === undefined ? "menuitem" : "menuitemcheckbox")
  if (item.checked !== undefined) button.setAttribute("aria-checked", item.checked)
  button.addEventListener("click", () => {
    close()
    item.action()
  })
  return button
}
