// The base of every canvas in a node: redraws in animation frames, stays sharp when the graph is zoomed, follows the
// theme, takes its place in the page again after an undo, and cleans up when the node is removed.

import { app } from "../../../scripts/app.js"

const HUES = [210, 145, 30, 280, 340, 180, 60, 0, 250, 100]

// What removed nodes left in the page. An undo or another workflow makes a new node with the same id, and the page may
// keep showing the old element for it: {root, id, graph, name, focused}.
let leftBehind = []

const graphZoom = () => app.canvas?.ds?.scale ?? 1
const controls = (root) => [...root.querySelectorAll("canvas, button, input, select")]

/** Adds a style sheet to the page, once for each id. */
export function addStyle(id, css) {
  if (document.getElementById(id)) return
  document.head.append(Object.assign(document.createElement("style"), { id, textContent: css }))
}

/** Subclasses implement `draw(context, colours)` and may extend `update`, `isStale`, `colours` and `destroy`. */
export class NodeCanvas {
  #removal = new AbortController()
  #resizes = new ResizeObserver(() => this.#onResize())
  #name = "" // of the widget
  #minHeight = 0 // of the widget
  #graph = null // id of the node's graph
  #focused = -1 // the control that had the focus before an undo
  #blurred = -1 // the control that lost the focus to nothing, as in an undo
  #frame = 0 // the pending animation frame, or 0
  #zoom = 0 // of the graph, when the canvas was last drawn

  /** root: the element that becomes the node's widget; its background, outline and text colours are the theme's. */
  constructor(node, root, canvas) {
    Object.assign(this, { node, root, canvas })
    this.#resizes.observe(canvas)
    this.on(root, "focusout", (event) => (this.#blurred = event.relatedTarget ? -1 : controls(root).indexOf(event.target)))
    this.whenAdded(() => this.on(window, "pointerdown focusin", () => (this.#blurred = -1), { capture: true }))
    this.on(root, "transitionend", () => this.redraw()) // the theme's colours changed
    this.after(node, "onConfigure", () => this.#takePlace())
    this.after(node, "onRemoved", () => this.destroy())
  }

  /** Adds the root as a widget, which neither workflow nor prompt saves; height: its minimum in pixels. */
  addWidget(name, type, height, options = {}) {
    this.#name = name
    this.#minHeight = height
    const widget = this.node.addDOMWidget(name, type, this.root, {
      serialize: false,
      hideOnZoom: false,
      hideInPanel: true, // the properties panel would show the same element in another width
      getMinHeight: () => this.#minHeight,
      onDraw: () => this.redrawIfStale(),
      ...options,
    })
    widget.serialize = false
    return widget
  }

  /** Gives the widget another minimum height in pixels; a node that is too low grows. */
  setMinHeight(height) {
    const { node, root } = this
    this.#minHeight = height
    root.style.minHeight = `${height}px`
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
  }

  /** Puts the root where that of a removed node with the same id still stands, and the focus where it was. */
  #takePlace() {
    const { node, root } = this
    this.#graph = node.graph?.id
    const before = leftBehind.find(({ id, name }) => id === String(node.id) && name === this.#name)
    leftBehind = leftBehind.filter((one) => one !== before && one.root.isConnected)
    if (!before || before.root === root) return
    if (before.graph === this.#graph) this.#focused = before.focused
    // a node on the graph's canvas gets a new place by itself
    if (window.LiteGraph.vueNodesMode && before.root.isConnected && !root.isConnected) before.root.replaceWith(root)
  }

  #onResize() {
    const { activeElement } = document
    if (this.#focused >= 0 && this.canvas.clientWidth) {
      // someone may have gone elsewhere since
      if (!activeElement || activeElement === document.body) {
        controls(this.root)[this.#focused]?.focus({ preventScroll: true })
      }
      this.#focused = -1
    }
    this.redraw()
  }

  /** Runs once the node is in a graph: copying makes nodes that never are, and would leave listeners in the page. */
  whenAdded(action) {
    let done = false
    this.after(this.node, "onAdded", () => {
      if (!done) action()
      done = true
    })
  }

  /** Hands the wheel and the middle button to the graph, where the page itself does not; not from `scrolled`. */
  passToGraph(element, scrolled) {
    const pass = (event) => {
      if (scrolled.contains(event.target)) return
      event.preventDefault()
      event.stopPropagation()
      app.canvas.canvas.dispatchEvent(new event.constructor(event.type, event))
    }
    const middle = { pointerdown: (event) => event.button === 1, pointerup: (event) => event.button === 1 }
    middle.pointermove = (event) => event.buttons & 4
    for (const [name, isMiddle] of Object.entries(middle)) this.on(element, name, (event) => isMiddle(event) && pass(event))
    this.on(element, "wheel", pass, { passive: false })
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
    const { node, root } = this
    const focused = Math.max(controls(root).indexOf(document.activeElement), this.#blurred)
    leftBehind.push({ root, id: String(node.id), graph: this.#graph ?? node.graph?.id, name: this.#name, focused })
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
