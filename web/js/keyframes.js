// The editors' mathematics, free of the DOM: a port of imtalker/motion/keyframes.py; tests compare the two.
// Curves are {channel: [[seconds, value, easing?], ...]}, sorted by time; a keyframe without easing is smooth. Functions
// return new curves and modify none.

export const VERSION = 2
export const FPS = 25
export const EASINGS = ["smooth", "linear", "hold"]
export const MAX_SECONDS = 3600
const MAX_KEYFRAMES = 10000
const MAX_TEXT = 2_000_000
const MAX_CHANNELS = 200, MAX_NAME = 80 // where any name is allowed

export const round = (value, parts) => Math.floor(value * parts + 0.5) / parts
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high)
export const snap = (time) => round(Math.round(time * FPS) / FPS, 1000)

/** Reads the keyframes of these channels, null for any, from JSON; throws an Error whose message can be shown as is. */
export function parse(text, channels) {
  if (text.length > MAX_TEXT) throw new Error(`The keyframes text is longer than ${MAX_TEXT} characters.`)
  if (!text.trim()) return {}
  let content
  try {
    content = JSON.parse(text)
  } catch (error) {
    throw new Error(`The keyframes are not valid JSON: ${error.message}`, { cause: error })
  }
  const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value)
  if (!isTable(content) || !isTable(content.channels ?? {}) || content.channels === null) {
    throw new Error('The keyframes must be JSON like {"version": 2, "channels": {"yaw": [[0, 10]]}}.')
  }
  if (![1, VERSION].includes(content.version)) {
    throw new Error(`The keyframes have version ${content.version}, not 1 or ${VERSION}.`)
  }
  const names = Object.keys(content.channels ?? {})
  const unknown = [
    ...Object.keys(content).filter((name) => name !== "version" && name !== "channels"),
    ...names.filter((name) => (channels ? !channels.includes(name) : !isName(name))),
  ]
  if (unknown.length) throw new Error(`The keyframes contain an unknown name, "${unknown[0].slice(0, 40)}".`)
  if (names.length > MAX_CHANNELS) throw new Error(`The keyframes have more than ${MAX_CHANNELS} channels.`)
  const curves = {}
  for (const name of channels ?? names) {
    if (!Object.hasOwn(content.channels ?? {}, name)) continue
    const curve = readCurve(name, content.channels[name], content.version === VERSION ? EASINGS : [])
    if (curve.length) curves[name] = curve
  }
  return curves
}

const isName = (name) => name.length > 0 && name.length <= MAX_NAME && name !== "__proto__"

function readCurve(name, values, easings) {
  if (!Array.isArray(values)) throw new Error(`Channel "${name}" must be a list of keyframes [seconds, value].`)
  if (values.length > MAX_KEYFRAMES) throw new Error(`Channel "${name}" has more than ${MAX_KEYFRAMES} keyframes.`)
  const found = new Map()
  values.forEach((keyframe, index) => {
    const where = `Keyframe ${index + 1} of channel "${name}"`
    if (!isKeyframe(keyframe, easings)) throw new Error(`${where} must be [seconds, value] or [seconds, value, easing].`)
    const [time, value, easing] = keyframe
    if (time < 0 || time > MAX_SECONDS) throw new Error(`${where} must be between 0 and ${MAX_SECONDS} s.`)
    found.set(round(time, 1000), eased([round(time, 1000), value], easing))
  })
  return sorted([...found.values()])
}

const isKeyframe = (keyframe, easings) =>
  Array.isArray(keyframe) &&
  (keyframe.length === 2 || (keyframe.length === 3 && easings.includes(keyframe[2]))) &&
  keyframe.slice(0, 2).every(Number.isFinite)

const sorted = (keyframes) => keyframes.sort((a, b) => a[0] - b[0])

export const easingOf = (keyframe) => keyframe[2] ?? "smooth"

/** A keyframe's time and value with this easing. */
export const eased = ([time, value], easing = "smooth") => (easing === "smooth" ? [time, value] : [time, value, easing])

export function serialise(curves) {
  const lines = Object.entries(curves)
    .filter(([, curve]) => curve.length)
    .map(([name, curve]) => `\n  ${JSON.stringify(name)}: [${curve.map(written).join(", ")}]`)
  return `{"version": ${VERSION}, "channels": {${lines.join(",")}}}`
}

const written = ([time, value, easing]) => (easing ? `[${time}, ${value}, "${easing}"]` : `[${time}, ${value}]`)

/** The slopes at the keyframes after Fritsch and Carlson; what is held counts as flat. */
export function slopes(curve) {
  const count = curve.length
  if (count < 2) return [0]
  const h = [], m = []
  for (let i = 0; i < count - 1; i++) {
    h.push(curve[i + 1][0] - curve[i][0])
    m.push(easingOf(curve[i]) === "hold" ? 0 : (curve[i + 1][1] - curve[i][1]) / h[i])
  }
  if (count === 2) return [m[0], m[0]]
  const found = [endSlope(h[0], h[1], m[0], m[1])]
  for (let i = 1; i < count - 1; i++) {
    const before = 2 * h[i] + h[i - 1], after = h[i] + 2 * h[i - 1]
    const turns = Math.sign(m[i - 1]) !== Math.sign(m[i]) || m[i] === 0
    found.push(turns ? 0 : (before + after) / (before / m[i - 1] + after / m[i]))
  }
  found.push(endSlope(h[count - 2], h[count - 3], m[count - 2], m[count - 3]))
  return found
}

function endSlope(h0, h1, m0, m1) {
  const slope = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1)
  if (Math.sign(slope) !== Math.sign(m0)) return 0
  return Math.sign(m0) !== Math.sign(m1) && Math.abs(slope) > 3 * Math.abs(m0) ? 3 * m0 : slope
}

/** A curve's value at one time; pass its slopes when evaluating it many times. */
export function valueAt(curve, time, d = slopes(curve)) {
  const last = curve.length - 1
  if (time <= curve[0][0]) return curve[0][1]
  if (time >= curve[last][0]) return curve[last][1]
  let low = 0, high = last
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (curve[middle][0] <= time) low = middle
    else high = middle
  }
  const [t0, v0, easing] = curve[low], [t1, v1] = curve[high]
  if (easing === "hold") return v0
  const h = t1 - t0, s = time - t0, m = (v1 - v0) / h
  if (easing === "linear") return v0 + m * s
  const c2 = (3 * m - 2 * d[low] - d[high]) / h, c3 = (d[low] + d[high] - 2 * m) / (h * h)
  return v0 + s * (d[low] + s * (c2 + s * c3))
}

export const range = (channel, more) => (more ? [channel.wide_low, channel.wide_high] : [channel.low, channel.high])

/** Rounds a value as the editor writes it: angles to a tenth of a degree, others to a hundredth. */
export const tidy = (channel, value) => round(value, channel.step < 1 ? 100 : 10)
export const formatted = (channel, value) => value.toFixed(channel.step < 1 ? 2 : 1) + channel.unit

export const lastTime = (curves) => Math.max(0, ...Object.values(curves).map((curve) => curve.at(-1)?.[0] ?? 0))

/** The curves with a keyframe at this time; it replaces those within half a frame, and eases as the last before it. */
export function withKeyframe(curves, name, time, value) {
  const kept = (curves[name] ?? []).filter(([t]) => Math.abs(t - time) >= 0.5 / FPS)
  const before = (curves[name] ?? []).filter(([t]) => t < time + 0.5 / FPS).at(-1)
  return { ...curves, [name]: sorted([...kept, eased([round(time, 1000), value], before?.[2])]) }
}

/** Replaces each selected keyframe (of a Set) by `change(keyframe, name)`; returns {curves, selected}. */
function replaced(curves, selected, change) {
  const found = {}, chosen = new Set()
  for (const [name, curve] of Object.entries(curves)) {
    // one that lands on another replaces it
    const moving = curve.filter((keyframe) => selected.has(keyframe)).map((keyframe) => change(keyframe, name))
    const taken = new Map(moving.map((keyframe) => [keyframe[0], keyframe]))
    const kept = curve.filter((keyframe) => !selected.has(keyframe) && !taken.has(keyframe[0]))
    found[name] = sorted([...kept, ...taken.values()])
    for (const keyframe of taken.values()) chosen.add(keyframe)
  }
  return { curves: found, selected: chosen }
}

/** Gives the selected keyframes an easing; returns {curves, selected}. */
export const withEasing = (curves, selected, easing) => replaced(curves, selected, (keyframe) => eased(keyframe, easing))

/** The first and last time of keyframes. */
export function span(keyframes) {
  const times = [...keyframes].map(([time]) => time)
  return [Math.min(...times), Math.max(...times)]
}

/** Stretches the selected keyframes in time around `centre` by a factor; returns {curves, selected}. */
export function stretched(curves, selected, centre, factor) {
  const at = (time) => clamp(round(centre + (time - centre) * factor, 1000), 0, MAX_SECONDS)
  return replaced(curves, selected, ([time, value, easing]) => eased([at(time), value], easing))
}

/** Multiplies the selected keyframes' distances from rest, within the limits; returns {curves, selected}. */
export function amplified(curves, selected, factor, channels, more) {
  return replaced(curves, selected, ([time, value, easing], name) => {
    const { rest } = channels[name]
    const target = clamp(rest + (value - rest) * factor, ...range(channels[name], more))
    return eased([time, tidy(channels[name], target)], easing)
  })
}

export function without(curves, selected) {
  const kept = {}
  for (const [name, curve] of Object.entries(curves)) {
    const rest = curve.filter((keyframe) => !selected.has(keyframe))
    if (rest.length) kept[name] = rest
  }
  return kept
}

/**
 * Moves the selected keyframes (a Set) in time and, by channel, in value; they replace the keyframes they land on.
 * As a group they stop at time 0; each of them stops at its channel's limits. Returns {curves, selected}.
 */
export function moved(curves, selected, seconds, changes, channels, more) {
  const shift = Math.max(seconds, -span(selected)[0])
  return replaced(curves, selected, ([time, value, easing], name) => {
    const change = changes[name] ?? 0
    const target = change ? tidy(channels[name], clamp(value + change, ...range(channels[name], more))) : value
    return eased([Math.min(round(time + shift, 1000), MAX_SECONDS), target], easing)
  })
}

/** The selected keyframes as a text of their own that starts at time 0. */
export function copied(curves, selected) {
  const [first] = span(selected)
  const found = {}
  for (const [name, curve] of Object.entries(curves)) {
    const part = curve.filter((keyframe) => selected.has(keyframe))
    if (part.length) found[name] = part.map(([time, ...rest]) => [round(time - first, 1000), ...rest])
  }
  return serialise(found)
}

/** Inserts the curves of `part` at `time`. Returns {curves, selected}, with the new keyframes selected. */
export function pasted(curves, part, time) {
  const found = { ...curves }, selected = new Set()
  for (const [name, curve] of Object.entries(part)) {
    const moved = curve.map(([t, ...rest]) => [Math.min(round(t + time, 1000), MAX_SECONDS), ...rest])
    const added = new Map(moved.map((keyframe) => [keyframe[0], keyframe]))
    found[name] = sorted([...(found[name] ?? []).filter(([t]) => !added.has(t)), ...added.values()])
    for (const keyframe of added.values()) selected.add(keyframe)
  }
  return { curves: found, selected }
}

/** A preset's keyframes from 0 to `seconds`, like `expand` in presets.py. */
export function expand(preset, seconds, amount, channels) {
  const times = preset.repeats ? Math.max(1, Math.floor(seconds / preset.length + 0.5)) : 1
  const length = seconds / times
  const curves = {}
  for (const [name, pattern] of Object.entries(preset.channels)) {
    const found = new Map()
    for (let repeat = 0; repeat < times; repeat++) {
      for (const [share, value] of pattern) {
        found.set(round((repeat + share) * length, 1000), round(channels[name].rest + value * amount, 100))
      }
    }
    curves[name] = sorted([...found])
  }
  return curves
}

/**
 * The curves with a preset from `start` on; in its channels it replaces what lies in its time. It ends within `end`:
 * where too little time is left it starts earlier, and it is never longer than that.
 */
export function inserted(curves, preset, { start, seconds, end, amount }, channels, more) {
  const length = Math.min(seconds, end)
  const from = round(Math.max(0, Math.min(start, end - length)), 1000), to = round(from + length, 1000)
  const found = { ...curves }, selected = new Set()
  const part = clamped(expand(preset, to - from, amount, channels), channels, more)
  for (const [name, curve] of Object.entries(part)) {
    const kept = (curves[name] ?? []).filter(([time]) => time < from || time > to)
    const added = new Map(curve.map(([time, value]) => [Math.min(round(time + from, 1000), to), value]))
    found[name] = sorted([...kept, ...added])
    for (const keyframe of found[name]) if (keyframe[0] >= from && keyframe[0] <= to) selected.add(keyframe)
  }
  return { curves: found, selected, from, to }
}

/** The curves with every value clamped to its channel's limits. */
export function clamped(curves, channels, more) {
  const inside = (name) => ([time, value, ...rest]) => [time, clamp(value, ...range(channels[name], more)), ...rest]
  return Object.fromEntries(Object.entries(curves).map(([name, curve]) => [name, curve.map(inside(name))]))
}

/** The point {x, y, ...} nearest to x, y within `radius`, or null. */
export function nearest(points, x, y, radius) {
  let best = null, least = radius
  for (const point of points) {
    const distance = Math.hypot(point.x - x, point.y - y)
    if (distance <= least) [best, least] = [point, distance]
  }
  return best
}

/** Turns a point of the head (x right, y up, z to the camera) by degrees, like `head_pose` in keyframes.py. */
export function turned([x, y, z], yaw, pitch, roll) {
  const [a, b, c] = [yaw, -pitch, -roll].map((degrees) => (degrees * Math.PI) / 180)
  const x1 = x * Math.cos(c) - y * Math.sin(c), y1 = x * Math.sin(c) + y * Math.cos(c)
  const y2 = y1 * Math.cos(b) - z * Math.sin(b), z2 = y1 * Math.sin(b) + z * Math.cos(b)
  return [x1 * Math.cos(a) + z2 * Math.sin(a), y2, -x1 * Math.sin(a) + z2 * Math.cos(a)]
}
