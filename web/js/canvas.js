// The base of every canvas in a node: redraws in animation frames, stays sharp when the graph is zoomed, follows the
// theme, and cleans up when the node is removed.

import { app } from "../../../scripts/app.js"

const HUES = [210, 145, 30, 280, 340, 180]

const graphZoom = () => app.canvas?.ds?.scale ?? 1

/** Adds a style sheet to the page, once for each id. */
export function addStyle(id, css) {
  if (document.getElementById(id)) return
  document.head.append(Object.assign(document.createElement("style"), { id, textContent: css }))
}

/** Subclasses implement `draw(context, colours)` and may extend `update`, `isStale`, `colours` and `destroy`. */
export class NodeCanvas {
  #removal = new AbortController()
  #resizes = new ResizeObserver(() => this.redraw())
  #frame = 0 // the pending animation frame, or 0
  #zoom = 0 // of the graph, when the canvas was last drawn

  /** root: the element that becomes the node's widget; its background, outline and text colours are the theme's. */
  constructor(node, root, canvas) {
    Object.assign(this, { node, root, canvas })
    this.#resizes.observe(canvas)
    this.on(root, "transitionend", () => this.redraw()) // the theme's colours changed
    this.after(node, "onRemoved", () => this.destroy())
  }

  /** Adds the root as a widget, which neither workflow nor prompt saves; height: its minimum in pixels. */
  addWidget(name, type, height, options = {}) {
    const widget = this.node.addDOMWidget(name, type, this.root, {
      serialize: false,
      hideOnZoom: false,
      getMinHeight: () => height,
      onDraw: () => this.redrawIfStale(),
      ...options,
    })
    widget.serialize = false
  }

  /** Listens to events ("name name ...") until the node is removed. */
  on(target, events, listener, options = {}) {
    for (const event of events.split(" ")) {
      target.addEventListener(event, listener, { signal: this.#removal.signal, ...options })
    }
  }

  /** Calls `listener` after a method of the node or of a widget, until the node is removed. */
  after(owner, method, listener) {
    const original = owner[method], { signal } = this.#removal
    owner[method] = function (...values) {
      const result = original?.apply(this, values)
      if (!signal.aborted) listener(...values)
      return result
    }
  }

  destroy() {
    this.#removal.abort()
    this.#resizes.disconnect()
    cancelAnimationFrame(this.#frame)
  }

  /** Draws in the next animation frame, however often it is called before. */
  redraw() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0
      this.drawNow()
    })
  }

  redrawIfStale() {
    if (this.isStale()) this.redraw()
  }

  isStale() {
    return graphZoom() !== this.#zoom
  }

  /** Runs before each drawing, even while the canvas is too small to show it. */
  update() {}

  drawNow() {
    this.update()
    const { canvas } = this
    const width = canvas.clientWidth, height = canvas.clientHeight
    if (!width || !height) return
    // the graph's zoom scales the canvas as well: give it the pixels that are visible
    this.#zoom = graphZoom()
    const scale = devicePixelRatio * Math.min(Math.max(this.#zoom, 1), 4)
    const pixelWidth = Math.round(width * scale), pixelHeight = Math.round(height * scale)
    if (canvas.width !== pixelWidth || canvas.height !== pixelHeight) {
      Object.assign(canvas, { width: pixelWidth, height: pixelHeight })
    }
    const context = canvas.getContext("2d"), colours = this.colours()
    context.save()
    context.setTransform(pixelWidth / width, 0, 0, pixelHeight / height, 0, 0)
    context.clearRect(0, 0, width, height)
    context.font = `11px ${colours.font}`
    this.draw(context, colours)
    context.restore()
  }

  /** The theme's current colours and font; `curve(index)` is a colour that is readable on its background. */
  colours() {
    const style = getComputedStyle(this.root)
    const [r, g, b] = style.backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0]
    const dark = 0.3 * r + 0.59 * g + 0.11 * b < 140
    const curve = (index) => `hsl(${HUES[index % HUES.length]} ${dark ? "75% 68%" : "80% 32%"})`
    return { text: style.color, back: style.backgroundColor, line: style.outlineColor, font: style.fontFamily, curve }
  }
}
