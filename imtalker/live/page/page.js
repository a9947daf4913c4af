/** The live page: starts a session, sends sound, camera and wishes, shows the face and what the session says. */

import { sliders } from "./sliders.js";

const ALIVE = 2000; // ms between two signs of life
const RETRY = 1500; // ms until a face that is taken is asked for again
const token = location.hash.slice(1);
const at = (id) => document.getElementById(id);
let session = null; // { peer, channel, key, sound, camera } while there is one
let resets = [];

function headers(more = {}) {
  return { ...more, ...(token && { Authorization: `Bearer ${token}` }), ...(session && { "X-Session": session.key }) };
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

/** A request to the server; throws its sentence if it refuses. */
async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers(options.headers) });
  if (!response.ok) {
    const found = await response.json().catch(() => ({}));
    throw Object.assign(new Error(found.error ?? "The server does not answer."), { status: response.status });
  }
  return response;
}

/** Runs an action of a button and shows what went wrong. */
const safely = (action) => async (event) => {
  try {
    notice("");
    await action(event);
  } catch (error) {
    notice(error.message);
  }
};

function tell(message) {
  if (session?.channel.readyState === "open") session.channel.send(JSON.stringify(message));
}

async function start() {
  at("start").disabled = true;
  at("state").textContent = "Connecting ...";
  const peer = new RTCPeerConnection({ iceServers: [] });
  const channel = peer.createDataChannel("imtalker");
  const sound = peer.addTransceiver("audio", { direction: "sendrecv" });
  const camera = peer.addTransceiver("video", { direction: "sendrecv" });
  const shown = new MediaStream();
  peer.ontrack = ({ track, receiver }) => {
    shown.addTrack(track);
    receiver.playoutDelayHint = 0;
    if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
    at("face").srcObject = shown;
  };
  try {
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    const found = await offer(peer.localDescription.sdp);
    session = { peer, channel, key: found.key, sound: sound.sender, camera: camera.sender };
    channel.onmessage = ({ data }) => heard(JSON.parse(data));
    channel.onclose = () => ended("The session has ended.");
    peer.onconnectionstatechange = () => {
      if (["failed", "closed"].includes(peer.connectionState)) ended("The connection was lost.");
    };
    await peer.setRemoteDescription({ type: "answer", sdp: found.sdp });
    session.alive = setInterval(() => tell({ type: "alive" }), ALIVE);
    offered(found);
    connected(true);
    await at("face").play().catch(() => {}); // a browser may want another click for sound
  } catch (error) {
    peer.close();
    session = null;
    connected(false);
    throw error;
  }
}

/** Waits until the page knows its own addresses. */
function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
    setTimeout(done, 2000);
  });
}

/** The server's answer; waits while somebody else has the face. */
async function offer(sdp) {
  for (;;) {
    try {
      const body = JSON.stringify({ sdp });
      const response = await ask("/offer", { method: "POST", body, headers: { "Content-Type": "application/json" } });
      return await response.json();
    } catch (error) {
      if (error.status !== 409) throw error;
      notice(`${error.message} This page waits and tries again.`);
      await new Promise((done) => setTimeout(done, RETRY));
    }
  }
}

function stop() {
  if (!session) return;
  fetch("/leave", { method: "POST", headers: headers(), keepalive: true }).catch(() => {});
  ended("");
}

function ended(text) {
  if (!session) return;
  const { peer, sound, camera, alive } = session;
  clearInterval(alive);
  for (const sender of [sound, camera]) sender.track?.stop();
  session = null;
  peer.close();
  at("face").srcObject = null;
  connected(false);
  notice(text);
}

function connected(yes) {
  at("start").hidden = yes;
  at("start").disabled = false;
  at("panel").disabled = !yes;
  for (const id of ["stop", "mute", "quiet", "record"]) at(id).disabled = !yes;
  at("badge").hidden = true;
  at("record").setAttribute("aria-pressed", "false");
  at("microphone").value = at("camera").value = "off";
  at("state").textContent = yes ? "Connected" : "Not connected";
  if (yes) notice("");
}

/** Shows what the server offers. */
function offered({ aim, expression, cfg, seed, voice, people }) {
  const movement = {
    ...aim,
    strength: ["Strength", 0, 2, 1],
    cfg: ["Speech (cfg)", 0, 4, cfg],
  };
  resets = [
    sliders(at("movement"), movement, ({ strength, cfg, ...rest }) => tell({ type: "steer", strength, cfg, aim: rest })),
  ];
  at("expressions").hidden = !Object.keys(expression).length;
  if (Object.keys(expression).length) {
    resets.push(sliders(at("expression"), expression, (values) => tell({ type: "steer", expression: values })));
  }
  at("seed").value = seed;
  at("say").disabled = at("text").disabled = !voice;
  at("voice").textContent = voice ? `Read by ${voice}.` : "To have texts read, install espeak-ng on this machine.";
  at("people").replaceChildren(person(null), ...people.map(person));
}

function person(seed) {
  const button = document.createElement("button");
  button.title = seed === null ? "The portrait that the command was given" : `Drawn person ${seed}`;
  button.addEventListener("click", () => tell({ type: "person", seed }));
  if (seed === null) {
    button.textContent = "First";
    return button;
  }
  const image = document.createElement("img");
  image.alt = button.title;
  ask(`/people/${seed}.png`).then(async (response) => {
    image.src = URL.createObjectURL(await response.blob());
    image.onload = () => URL.revokeObjectURL(image.src);
  }, () => {});
  button.append(image);
  return button;
}

/** What the session says. */
function heard(message) {
  if (message.type === "error") notice(message.text);
  if (message.type === "recorded") safely(download)();
  if (message.type !== "state") return;
  const { pictures, latency, speaking, listening, camera, recording } = message;
  const looking = at("camera").value === "on" && !camera;
  const doing = looking ? "looks for your face" : camera ? "follows the camera" : speaking ? "speaking" : listening ? "listening" : "idle";
  const slow = pictures < 23 ? ", too slow for 25: pictures are left out, lips stay with the sound" : "";
  at("state").textContent = `${doing} · ${pictures.toFixed(0)} pictures/s${slow} · ${latency.toFixed(2)} s behind`;
  at("badge").hidden = recording === null;
  at("record").setAttribute("aria-pressed", String(recording !== null));
  if (recording !== null) at("badge").textContent = `REC ${recording.toFixed(0)} s`;
}

async function download() {
  const response = await ask("/recording");
  const link = Object.assign(document.createElement("a"), { download: "imtalker.mp4" });
  link.href = URL.createObjectURL(await response.blob());
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function upload(input, path) {
  const [file] = input.files;
  input.value = "";
  if (file) await ask(path, { method: "POST", body: file });
}

/** Sends a device's track in place of what was sent, or nothing. */
async function send(sender, wanted, choose) {
  const media = wanted ? await devices(choose) : null;
  sender.track?.stop();
  await sender.replaceTrack(media);
}

async function devices(choose) {
  if (!navigator.mediaDevices) throw new Error("A browser gives microphone and camera only to https or to 127.0.0.1.");
  try {
    return await choose();
  } catch (error) {
    throw new Error(`The browser gives no access (${error.message}): allow it beside the address.`);
  }
}

const microphone = async () => {
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  return (await navigator.mediaDevices.getUserMedia({ audio })).getAudioTracks()[0];
};

const webcam = async () => {
  const video = { width: 640, height: 480, frameRate: 25 };
  return (await navigator.mediaDevices.getUserMedia({ video })).getVideoTracks()[0];
};

const tab = async () => {
  const media = await navigator.mediaDevices.getDisplayMedia({ audio: true, video: true });
  media.getVideoTracks().forEach((track) => track.stop());
  const [track] = media.getAudioTracks();
  if (!track) throw new Error("no sound was shared");
  return track;
};

async function listen(mode, choose = microphone) {
  try {
    await send(session.sound, mode !== "off", choose);
  } catch (error) {
    mode = "off";
    throw error;
  } finally {
    at("microphone").value = mode;
    tell({ type: "microphone", mode });
  }
}

async function watch(on) {
  try {
    await send(session.camera, on, webcam);
  } catch (error) {
    on = false;
    throw error;
  } finally {
    at("camera").value = on ? "on" : "off";
    tell({ type: "camera", on });
  }
}

at("start").addEventListener("click", safely(start));
at("stop").addEventListener("click", stop);
at("quiet").addEventListener("click", () => tell({ type: "interrupt" }));
at("mute").addEventListener("click", ({ target }) => {
  at("face").muted = !at("face").muted;
  target.setAttribute("aria-pressed", String(at("face").muted));
});
at("record").addEventListener("click", ({ target }) => {
  tell({ type: "record", on: target.getAttribute("aria-pressed") !== "true" });
});
at("say").addEventListener("click", safely(() => tell({ type: "text", text: at("text").value })));
at("sound").addEventListener("change", safely(({ target }) => upload(target, "/sound")));
at("portrait").addEventListener("change", safely(({ target }) => upload(target, "/portrait")));
at("tab").addEventListener("click", safely(() => listen("lips", tab)));
at("microphone").addEventListener("change", safely(({ target }) => listen(target.value)));
at("camera").addEventListener("change", safely(({ target }) => watch(target.value === "on")));
at("seed").addEventListener("change", ({ target }) => tell({ type: "steer", seed: Number(target.value) }));
at("reset").addEventListener("click", () => resets.forEach((reset) => reset()));
window.addEventListener("pagehide", stop);
