// A colour for each kind of link, readable on dark and on light themes. A palette of the artist's own that names one of
// our kinds keeps its colour.

import { app } from "../../../scripts/app.js"

// kind: [on dark themes, on light themes]; no two are near each other, or near those of IMAGE and MASK
const COLOURS = {
  IMTALKER_RENDERER: ["#b792f6", "#6313ec"],
  IMTALKER_GENERATOR: ["#f476d2", "#b80f8b"],
  IMTALKER_SOURCE: ["#ee992b", "#8e550b"],
  IMTALKER_AUDIO: ["#2bcdee", "#0a6c7f"],
  IMTALKER_MOTION: ["#8cee2b", "#3b6d09"],
  IMTALKER_CONTROL: ["#f48376", "#c12110"],
  IMTALKER_CROP: ["#eee12b", "#686108"],
  IMTALKER_RIG: ["#2beea6", "#09714b"],
}
const OURS = new Set(Object.values(COLOURS).flat())

/** Whether the theme's nodes are light. */
function isLight() {
  const context = document.createElement("canvas").getContext("2d")
  context.fillStyle = window.LiteGraph.NODE_DEFAULT_BGCOLOR // reads back as #rrggbb, unless it is translucent
  const [r, g, b] = context.fillStyle.match(/[\da-f]{2}/g)?.map((part) => Number.parseInt(part, 16)) ?? [0, 0, 0]
  return 0.3 * r + 0.59 * g + 0.11 * b > 140
}

/** Gives the kinds their colours, on the canvas and, by a style sheet, in Nodes 2.0. */
function apply(sheet) {
  const index = isLight() ? 1 : 0
  const maps = [app.canvas.default_connection_color_byType, app.canvas.constructor.link_type_colors]
  for (const [kind, pair] of Object.entries(COLOURS)) {
    for (const map of maps) if (!map[kind] || OURS.has(map[kind])) map[kind] = pair[index]
  }
  const rules = Object.entries(COLOURS).map(([kind, pair]) => `--color-datatype-${kind}: ${pair[index]};`)
  const css = `:root { ${rules.join(" ")} }`
  if (sheet.textContent === css) return
  sheet.textContent = css
  app.canvas.setDirty(true, true)
}

app.registerExtension({
  name: "IMTalker.linkColours",
  setup() {
    const sheet = Object.assign(document.createElement("style"), { id: "imtalker-link-colours" })
    document.head.append(sheet)
    apply(sheet)
    // a palette clears the colours of the kinds that it does not know, then writes its own into the page's root element
    new MutationObserver(() => apply(sheet)).observe(document.documentElement, { attributes: true })
  },
})
