// Copies and pastes keyframes as text, for the keys and the menu.

let clipboard = "" // what was copied last, for the menu

export function copy({ state }) {
  clipboard = state.copy()
  navigator.clipboard?.writeText(clipboard).catch(() => {}) // not on a page without https
  return clipboard
}

export const hasCopied = () => clipboard !== ""

/** content: by default what was copied last. */
export function paste({ state }, content = clipboard) {
  try {
    state.paste(content)
  } catch {
    // the clipboard holds something else
  }
}
