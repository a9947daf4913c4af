// The sound of an editor: plays a file of the server and reads its waveform, before any run.

import { api } from "../../../scripts/api.js"

const RATE = 8000 // enough for peaks; the browser resamples while it decodes
const PEAKS_PER_SECOND = 100
const MAX_BYTES = 200e6 // of a file that is decoded
const MAX_KEPT = 8
const waveforms = new Map() // address -> promise of {seconds, peaks}

/** The address of a file as Load Audio names it: "folder/name.wav [output]". */
function addressOf(file) {
  const [, path, type = "input"] = file.match(/^(.*?)(?: \[(input|output|temp)\])?$/)
  const cut = path.lastIndexOf("/")
  const query = { filename: path.slice(cut + 1), subfolder: path.slice(0, Math.max(cut, 0)), type }
  return api.apiURL(`/view?${new URLSearchParams(query)}`)
}

async function read(address) {
  const reply = await fetch(address)
  if (!reply.ok || Number(reply.headers.get("content-length")) > MAX_BYTES) throw new Error(`${address}: not read`)
  const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await reply.arrayBuffer())
  const count = Math.max(1, Math.round(decoded.duration * PEAKS_PER_SECOND))
  const levels = new Float32Array(count)
  for (let channel = 0; channel < decoded.numberOfChannels; channel++) {
    decoded.getChannelData(channel).forEach((sample, index) => {
      const peak = Math.min(count - 1, Math.floor((index / decoded.length) * count))
      levels[peak] = Math.max(levels[peak], Math.abs(sample))
    })
  }
  const loudest = levels.reduce((a, b) => Math.max(a, b), 0) || 1
  return { seconds: decoded.duration, peaks: Array.from(levels, (level) => Math.round((100 * level) / loudest)) }
}

function remembered(address) {
  if (!waveforms.has(address)) {
    if (waveforms.size >= MAX_KEPT) waveforms.delete(waveforms.keys().next().value)
    waveforms.set(address, read(address))
    // a file that is uploaded again later, or a server that was away
    waveforms.get(address).catch(() => waveforms.delete(address))
  }
  return waveforms.get(address)
}

export class Sound {
  #player = null
  #starting = false

  constructor(onChange) {
    this.onChange = onChange
    this.file = null
    this.waveform = null // {seconds, peaks}: from 0 to 100 of the loudest
  }

  /** file: as Load Audio names it, or null for none. */
  use(file) {
    if (file === this.file) return
    this.stop()
    Object.assign(this, { file, waveform: null })
    this.#player = null
    if (file === null) return
    const taken = (waveform) => {
      if (this.file !== file) return
      this.waveform = waveform
      this.onChange()
    }
    remembered(addressOf(file)).then(taken, () => {}) // without a waveform, as before there were any
  }

  play(time) {
    if (this.file === null) return
    this.#player ??= new Audio(addressOf(this.file))
    const player = this.#player
    player.currentTime = time
    this.#starting = true
    const started = () => (this.#starting = false)
    player.play().then(started, started)
  }

  stop() {
    this.#player?.pause()
  }

  seek(time) {
    if (!this.#player) return
    if (this.#player.ended || this.#player.paused) this.play(time)
    else this.#player.currentTime = time
  }

  /** Seconds; null while it is silent: the picture then has its own clock. `before`: what to return while it starts. */
  time(before) {
    const player = this.#player
    if (!player || player.paused || player.ended || player.error) return this.#starting && player ? before : null
    return this.#starting ? before : player.currentTime
  }
}
