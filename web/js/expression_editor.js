// Expression: a face whose lids, brows and mouth can be dragged, and lanes for every channel of the rig.

import { install, KeyframeEditor } from "./editor.js"
import { ExpressionState } from "./expression_state.js"
import { BROW_Y, drawFace, EYE, MOUTH_Y } from "./face.js"
import { dragValues, speed } from "./pointer.js"
import { RULER } from "./ruler.js"
import { text } from "./texts.js"

const CLICK_RADIUS = 2 // pixels that the pointer may move in a click
const TRAVEL = 0.4 // half sides of the frame for a change by 1
const BLINK = 0.32 // seconds of a tick for a blink
// what a drag of each part changes, by how far it goes to the right and up
const PARTS = {
  brows: { up: { name: "brows", sign: 1 } },
  left: { up: { name: "blink left", sign: -1 } },
  right: { up: { name: "blink right", sign: -1 } },
  gaze: { across: { name: "gaze horizontal", sign: 1 }, up: { name: "gaze vertical", sign: 1 } },
  mouth: { across: { name: "mouth wide", sign: 1 }, up: { name: "mouth open", sign: -1 } },
  cornerLeft: { across: { name: "mouth wide", sign: 1 }, up: { name: "smile", sign: 1 } },
  cornerRight: { across: { name: "mouth wide", sign: -1 }, up: { name: "smile", sign: 1 } },
}

class ExpressionEditor extends KeyframeEditor {
  static laneHeight = 30
  static State = ExpressionState

  constructor(node, spec) {
    super(node, spec)
    this.state.onLanes = () => this.fitLanes()
    this.after(node, "onExecuted", (output) => {
      const run = output?.imtalker_expression?.[0]
      if (!run) return
      this.state.saveRun(run)
      this.state.restore()
    })
  }

  frame(layout) {
    const half = layout.side / 2 - 1
    return { x: half + 1, y: layout.height / 2, half }
  }

  /** The part of the face at this point, or null. */
  partAt(layout, point) {
    const { x, y, half } = this.frame(layout)
    const right = (point.x - x) / half, up = (y - point.y) / half
    if (Math.hypot(right, up) > 1) return null
    if (up > (BROW_Y + EYE.y + EYE.height) / 2) return "brows"
    if (up > EYE.y - 2 * EYE.height) return Math.abs(right) < 0.12 ? "gaze" : right > 0 ? "left" : "right"
    if (up > MOUTH_Y + 0.25) return null
    if (Math.abs(right) < 0.16) return "mouth"
    return right > 0 ? "cornerLeft" : "cornerRight"
  }

  gizmoCursor(layout, point) {
    const part = PARTS[this.partAt(layout, point)]
    if (!part) return "default"
    return part.across ? "move" : "ns-resize"
  }

  grabGizmo(layout, start) {
    const part = PARTS[this.partAt(layout, start)]
    if (!part) return null
    const { half } = this.frame(layout)
    const before = Object.fromEntries(this.state.names.map((name) => [name, this.state.value(name)]))
    return dragValues(this.state, (point, event) => {
      const across = point.x - start.x, up = start.y - point.y
      if (Math.hypot(across, up) <= CLICK_RADIUS) return {}
      const factor = speed(event) / half / TRAVEL
      // a drag straight up or aside changes one channel
      const sides = { across, up }
      const moved = Object.entries(part).filter(([side]) => Math.abs(sides[side]) * 3 > Math.hypot(across, up))
      return Object.fromEntries(
        moved.map(([side, { name, sign }]) => [name, before[name] + sign * sides[side] * factor]),
      )
    })
  }

  drawGizmo(context, colours, layout) {
    const frame = this.drawFrame(context, colours, layout)
    const { one_for_both: together } = this.state.run ?? {}
    const shut = Math.max(...["blink left", "blink right"].map((name) => this.state.value(name)))
    drawFace(context, colours, frame, (name) =>
      together && name.startsWith("blink") && shut > 0 ? shut : this.state.value(name),
    )
    // between the eyes, where the gaze is dragged
    context.fillStyle = colours.channel("gaze vertical")
    context.beginPath()
    context.arc(frame.x, frame.y - EYE.y * frame.half, 4, 0, 7)
    context.fill()
    const notes = this.notes(), top = Math.min(frame.y + frame.half + 16, layout.height - 40)
    if (notes) this.drawMessage(context, colours, notes, top, layout.side + 16)
  }

  /** What the rig of the last run cannot do with these keyframes. */
  notes() {
    const { state } = this
    const idle = state.idle().map((name) => text(state.channels[name].label))
    const [left, right] = ["blink left", "blink right"].map((name) => JSON.stringify(state.curves[name] ?? []))
    const lines = []
    if (idle.length) lines.push(`${text("This rig cannot move")}: ${idle.join(", ")}.`)
    if (state.run?.one_for_both && left !== right) lines.push(text("This rig shuts both eyes together."))
    return lines.join(" ")
  }

  drawLane(context, colours, layout, name, index) {
    super.drawLane(context, colours, layout, name, index)
    const { left, right, lane, width } = layout
    const top = RULER + index * lane
    const reason = this.state.reason(name)
    if (reason) {
      context.globalAlpha = 0.6
      context.fillStyle = colours.back
      context.fillRect(layout.side, top, width - layout.side, lane)
      context.globalAlpha = 0.7
      context.fillStyle = colours.text
      context.textAlign = "left"
      context.fillText(text(reason), left + 8, top + lane / 2)
      context.globalAlpha = 1
    } else if (name.startsWith("blink")) {
      this.drawBlinks(context, colours, layout, name, { top, lane, left, right })
    }
  }

  /** The blinks that the last run added by itself. */
  drawBlinks(context, colours, layout, name, { top, lane, left, right }) {
    context.fillStyle = colours.channel(name)
    context.globalAlpha = 0.35
    for (const time of this.state.run?.blinks ?? []) {
      const x0 = Math.max(this.x(layout, time), left), x1 = Math.min(this.x(layout, time + BLINK), right)
      if (x1 > x0) context.fillRect(x0, top + lane - 5, x1 - x0, 3)
    }
    context.globalAlpha = 1
  }

  /** The rig's further channels, which the menu gives lanes or takes them away. */
  ownItems(item) {
    const { state } = this
    const others = state.others().map((name) => {
      const shown = state.names.includes(name)
      const disabled = shown && Boolean(state.curves[name]?.length)
      return item(name, () => (shown ? state.close(name) : state.open([name])), { checked: shown, disabled })
    })
    return others.length ? [null, { heading: text("Further channels of the rig") }, ...others] : []
  }
}

install("IMTalkerExpression", ExpressionEditor)
