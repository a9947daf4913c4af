// The part of the time that a timeline shows, {start, seconds}, or null for all of it. Free of the DOM.

import { clamp, FPS } from "./keyframes.js"

const MIN_SECONDS = 0.1
// seconds between two ticks, each a whole number of frames
const STEPS = [0.04, 0.08, 0.2, 0.4, 1, 2, 5, 10, 30, 60, 120, 300, 600]

/** A view inside `whole` seconds; null if it shows them all. */
export function fitted(view, whole) {
  if (!view || view.seconds >= whole - 1e-6) return null
  const seconds = Math.max(view.seconds, Math.min(MIN_SECONDS, whole))
  return { start: clamp(view.start, 0, whole - seconds), seconds }
}

/** Shows `factor` times as many seconds; the time `at` stays where it is. */
export function zoomed(view, whole, at, factor) {
  const { start, seconds } = view ?? { start: 0, seconds: whole }
  const next = clamp(seconds * factor, Math.min(MIN_SECONDS, whole), whole)
  return fitted({ start: at - ((at - start) * next) / seconds, seconds: next }, whole)
}

export const scrolled = (view, whole, seconds) => view && fitted({ ...view, start: view.start + seconds }, whole)

/** Scrolls as little as needed to show a time. */
export function revealing(view, whole, time) {
  if (!view || (time >= view.start && time <= view.start + view.seconds)) return view
  const start = time < view.start ? time - view.seconds * 0.1 : time - view.seconds * 0.9
  return fitted({ ...view, start }, whole)
}

/** Shows the time from `first` to `last`, with a margin. */
export function showing(first, last, whole) {
  const margin = Math.max((last - first) * 0.1, 2 / FPS)
  const start = Math.max(0, first - margin)
  return fitted({ start, seconds: Math.min(last + margin, whole) - start }, whole)
}

/** Seconds between the ticks of a ruler with this many pixels per second. */
export function tickStep(pixels) {
  return STEPS.find((step) => step * pixels >= 44) ?? 1200
}

/** A time on the ruler: "1.04", "12:05", or the number of its frame. */
export function timeLabel(time, frames) {
  if (frames) return `${Math.round(time * FPS)}`
  if (time < 60) return `${Math.round(time * 100) / 100}`
  const whole = Math.floor(time + 1e-6), rest = Math.round((time - whole) * 100) / 100
  const seconds = String(whole % 60).padStart(2, "0") + (rest ? String(rest).slice(1) : "")
  return `${Math.floor(whole / 60)}:${seconds}`
}
