/** Runs in the live page before it: notes when a vowel is in the microphone, in the sound that comes back, on the lips. */

const LOUD = 0.03; // RMS of a vowel
const GAP = 700; // ms of quiet between two vowels
const MOUTH = [0.38, 0.56, 0.24, 0.2]; // of the picture's side: left, top, width, height
const SIDE = 128;

const probe = { microphone: [], sound: [], mouth: [], skew: [], pictures: 0, running: false };
window.probe = probe;

const getUserMedia = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await getUserMedia(wanted);
  if (wanted.audio) listen(stream, probe.microphone);
  return stream;
};

const Connection = window.RTCPeerConnection;
window.RTCPeerConnection = class extends Connection {
  constructor(...given) {
    super(...given);
    probe.peer = this;
  }
};

/** Notes when a stream becomes loud, to 3 ms. */
async function listen(stream, onsets) {
  probe.context ??= new AudioContext({ latencyHint: "interactive" });
  const code = `registerProcessor("onset", class extends AudioWorkletProcessor {
    process([[samples]]) {
      if (samples) this.port.postMessage(Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length));
      return true;
    }
  });`;
  await probe.context.audioWorklet.addModule(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  await probe.context.resume();
  const node = new AudioWorkletNode(probe.context, "onset");
  probe.context.createMediaStreamSource(stream).connect(node);
  let last = -Infinity;
  node.port.onmessage = ({ data }) => {
    const now = performance.now();
    if (data < LOUD) return;
    if (probe.running && now - last > GAP) onsets.push(now);
    last = now;
  };
}

/** How many pixels of the mouth's place are dark. */
function dark(video, canvas) {
  const [left, top, width, height] = MOUTH.map((share) => Math.round(share * SIDE));
  canvas.drawImage(video, 0, 0, SIDE, SIDE);
  const { data } = canvas.getImageData(left, top, width, height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) count += data[at] < 120 && data[at + 1] < 70 && data[at + 2] < 90;
  return count;
}

probe.begin = () => {
  const video = document.getElementById("face");
  const element = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const canvas = element.getContext("2d", { willReadFrequently: true });
  listen(new MediaStream(video.srcObject.getAudioTracks()), probe.sound);
  Object.assign(probe, { running: true, started: performance.now(), rest: 0, seconds: [] });
  let last = -Infinity;
  const seen = (now) => {
    if (!probe.running) return;
    probe.pictures += 1;
    const second = Math.floor((now - probe.started) / 1000);
    probe.seconds[second] = (probe.seconds[second] ?? 0) + 1;
    const count = dark(video, canvas);
    if (now - probe.started < 2500) probe.rest = Math.max(probe.rest, count);
    else if (count > probe.rest + 12) {
      if (now - last > GAP) probe.mouth.push(now);
      last = now;
    }
    video.requestVideoFrameCallback(seen);
  };
  video.requestVideoFrameCallback(seen);
  probe.timer = setInterval(async () => {
    const played = {};
    for (const report of (await probe.peer.getStats()).values()) {
      if (report.type === "inbound-rtp") played[report.kind] = report.estimatedPlayoutTimestamp;
    }
    if (played.audio && played.video) probe.skew.push(played.video - played.audio);
  }, 1000);
};

probe.end = () => {
  clearInterval(probe.timer);
  probe.running = false;
  const { microphone, sound, mouth, skew, pictures, started, seconds } = probe;
  const state = document.getElementById("state").textContent;
  const whole = seconds.slice(1, -1);
  return {
    microphone, sound, mouth, skew, pictures, state,
    seconds: (performance.now() - started) / 1000, slowest: Math.min(...whole),
  };
};
