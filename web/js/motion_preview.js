// Curves in the nodes that edit motion: the strongest movements of the motion from the last run.

import { app } from "../../../scripts/app.js"
import { addStyle, NodeCanvas } from "./canvas.js"
import { Memory } from "./memory.js"
import { text } from "./texts.js"

const NODES = [
  "IMTalkerEditMotion",
  "IMTalkerJoinMotion",
  "IMTalkerRetargetMotion",
  "IMTalkerFitLength",
  "IMTalkerCombineParts",
  "IMTalkerSilenceGate",
]
const HEIGHT = 84
const CAPTION_HEIGHT = 16
const motions = new Memory()

const STYLE = `
.imtalker-motion { width: 100%; height: 100%; min-height: ${HEIGHT}px; box-sizing: border-box; padding: 6px;
  border-radius: 6px; overflow: hidden; font: 11px Inter, Arial, sans-serif; color: var(--descrip-text);
  background-color: var(--comfy-input-bg); border: 1px solid var(--border-color); outline-color: var(--border-color);
  pointer-events: none; transition: color 1ms, background-color 1ms; }
.imtalker-motion canvas { width: 100%; height: 100%; display: block; }
`

class MotionPreview extends NodeCanvas {
  constructor(node) {
    addStyle("imtalker-motion", STYLE)
    const canvas = document.createElement("canvas")
    canvas.setAttribute("role", "img")
    const root = Object.assign(document.createElement("div"), { className: "imtalker-motion" })
    root.append(canvas)
    super(node, root, canvas)
    this.addWidget("motion_preview", "IMTALKER_MOTION_PREVIEW", HEIGHT, { getMaxHeight: () => 2 * HEIGHT })
    this.after(node, "onConfigure", () => this.show(motions.get(node)))
    this.after(node, "onExecuted", (output) => {
      const motion = output?.imtalker_motion?.[0]
      if (!motion) return
      motions.set(node, motion)
      this.show(motion)
    })
    node.setSize([node.size[0], Math.max(node.size[1], node.computeSize()[1])])
    this.show(null)
  }

  /** motion: {frames, seconds, curves}, each curve a list of values from -100 to 100; null before the first run. */
  show(motion) {
    this.motion = motion
    this.caption = text("Run the graph to see the motion")
    if (motion) this.caption = `${motion.frames} ${text("frames")}, ${+motion.seconds.toFixed(2)} ${text("s")}`
    this.canvas.setAttribute("aria-label", this.caption)
    this.redraw()
  }

  draw(context, colours) {
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight
    const middle = (height - CAPTION_HEIGHT) / 2
    context.strokeStyle = colours.line
    context.strokeRect(0, middle, width, 0)
    context.fillStyle = colours.text
    context.fillText(this.caption, 0, height - 3)
    context.lineJoin = "round"
    context.lineWidth = 1.5
    // backwards, so that the strongest is on top
    for (const [index, curve] of [...(this.motion?.curves.entries() ?? [])].reverse()) {
      const step = width / Math.max(1, curve.length - 1)
      context.strokeStyle = colours.curve(index)
      context.beginPath()
      curve.forEach((value, point) => context.lineTo(point * step, middle - (value / 100) * (middle - 2)))
      if (curve.length === 1) context.lineTo(width, middle)
      context.stroke()
    }
  }
}

app.registerExtension({
  name: "IMTalker.MotionPreview",
  nodeCreated(node) {
    if (NODES.includes(node.comfyClass)) new MotionPreview(node)
  },
})
